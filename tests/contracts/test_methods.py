"""Requirements on every training method in the table, with a real (tiny) encoder."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import Field
from torch import Tensor

from simcse_kit.data.readers import Kind
from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_reads, chunking_obstacle
from simcse_kit.methods.common.config import MethodConfig, parse_config
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.teachers import TeacherConfig
from simcse_kit.training.batching.gradient_cache import GradientCache
from tests.contracts import own_method

SENTENCES = [
    "the cat sat on the mat .",
    "a man is playing the guitar",
    "a woman reads a very big book",
    "the small bird sings loudly",
    "dog ran under the red car",
    "a child eats quietly in the park",
    "the river is not near the house",
    "old music , new guitar",
]
HARD_NEGATIVES = 2
# Steps to overfit eight sentences, where 30 are too few. PromptBERT: what a random model says at
# the mask token depends on the sentence but little, so that at first dropout outweighs it.
STEPS = {"promptbert": 90}
# Options where the paper's defaults do not fit eight sentences and two next ones.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpc": {"distances": 2},
    "moco": {"momentum": 0.9, "queue_size": 64},
    "prototypical": {"queue_size": 64, "clusters": [3], "every": 100, "momentum": 0.9},
    "swav": {"prototypes": 8, "hidden": 32, "frozen": 0.0},
}
# Options without the noise that `embed` draws in addition to dropout, and so per chunk.
QUIET: dict[str, dict[str, Any]] = {"consert": {"views": ["none", "none"]}}
# The last one is of no file of the package, as a user's own.
NAMES = [*METHODS, own_method.NAME]
CASES = [
    pytest.param(name, kind, id=f"{name.rpartition(':')[2]}-{kind}")
    for name in NAMES
    for kind in METHODS.resolve(name).reads
]
# Trained with every kind of data in CI, and with the first one by default.
TRAINED_CASES = [
    pytest.param(
        *case.values,
        id=case.id,
        marks=[pytest.mark.long]
        if case.values[1] != METHODS.resolve(case.values[0]).reads[0]
        else [],
    )
    for case in CASES
]
Tensors = dict[str, Tensor]
Make = Callable[..., Method]


def text_id(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def make_batch(method: type[Method], encoder: SentenceEncoder, kind: str) -> Tensors:
    """Eight rows; in triplets and documents every second row lacks its last text."""
    count = len(SENTENCES)
    rows = [
        [SENTENCES[i], SENTENCES[i] + " .", SENTENCES[(i + 3) % count] + " ?", "a tree"]
        for i in range(count)
    ]
    several = kind in ("triplets", "documents")
    layout = method.views(DataSpec(kind, HARD_NEGATIVES if several else 0))  # type: ignore[arg-type]
    texts = [[row[column] for column in layout] for row in rows]
    # By the encoder, as the collator does it: it may put sentences into a template.
    tokens, _ = encoder.tokenize([text for row in texts for text in row])
    input_ids, attention_mask = pad_batch(tokens, encoder.tokenizer.pad_token_id)
    shape = (count, len(layout))
    view_mask = torch.ones(shape, dtype=torch.bool)
    if several:
        view_mask[::2, -1] = False
    labels = {"labels": torch.arange(count).remainder(2).float()} if kind == "labelled" else {}
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, encoder.embedding_dim, generator=generator)
    targets = {"targets": vectors} if issubclass(method.Config, TeacherConfig) else {}
    return (
        labels
        | targets
        | {
            "input_ids": input_ids.unflatten(0, shape),
            "attention_mask": attention_mask.unflatten(0, shape),
            "text_ids": torch.tensor([[text_id(text) for text in row] for row in texts]),
            "view_mask": view_mask,
        }
    )


@pytest.fixture
def make(tiny_encoder_dir: Path) -> Make:
    def build(name: str, **options: Any) -> Method:
        torch.manual_seed(0)
        encoder = SentenceEncoder.load(tiny_encoder_dir)
        method: Method = METHODS.resolve(name)(
            encoder, build_config(name, OPTIONS.get(name, {}) | options)
        )
        return method.train()

    return build


def run(method: Method, kind: str, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    loss: Tensor = method(**make_batch(type(method), method.encoder, kind)).loss
    return loss


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_loss_is_a_finite_scalar_and_logs_are_detached(make: Make, name: str, kind: str) -> None:
    method = make(name)
    output = method(**make_batch(type(method), method.encoder, kind))
    assert output.loss.shape == ()
    assert output.loss.isfinite()
    assert output.loss.dtype == torch.float32
    assert output.logs
    for value in output.logs.values():
        assert math.isfinite(float(value))
        assert not (isinstance(value, Tensor) and (value.requires_grad or value.dim()))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradient_reaches_every_weight(make: Make, name: str, kind: str) -> None:
    method = make(name)
    torch.autograd.backward(run(method, kind))
    dead = [
        key
        for key, weight in method.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    ]
    assert dead == []


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gradients_are_the_same_in_chunks(
    make: Make, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever looks at other rows, or keeps state, in ``embed`` shows here."""
    method = make(name, **QUIET.get(name, {})).double()
    # In momentum copies too, where dropout acts as well.
    for module in method.modules():
        if isinstance(module, SentenceEncoder):
            module.set_dropout(0.0)
    batch = make_batch(type(method), method.encoder, kind)
    loss = method.loss

    # What is drawn in `layout` and `loss`, such as repeated words, must be the same.
    def seeded(*args: Any) -> MethodOutput:
        torch.manual_seed(1)
        return loss(*args)

    monkeypatch.setattr(method, "loss", seeded)
    torch.manual_seed(0)
    torch.autograd.backward(method(**batch).loss)
    expected = {n: w.grad.clone() for n, w in method.named_parameters() if w.grad is not None}
    method.zero_grad()
    torch.manual_seed(0)
    torch.autograd.backward(GradientCache(24)(method, Batch(**batch)).loss)
    found = {n: w.grad for n, w in method.named_parameters() if w.grad is not None}
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_seed_decides_the_loss(make: Make, name: str, kind: str) -> None:
    method = make(name)
    assert run(method, kind, seed=1).equal(run(method, kind, seed=1))
    assert not run(method, kind, seed=1).equal(run(method, kind, seed=2))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_order_of_the_batch_does_not_matter(make: Make, name: str, kind: str) -> None:
    method = make(name).eval()
    batch = make_batch(type(method), method.encoder, kind)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    shuffled = {key: value[order] for key, value in batch.items()}
    torch.testing.assert_close(method(**shuffled).loss, method(**batch).loss, rtol=0, atol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_state_dict_holds_the_whole_method(make: Make, name: str, kind: str) -> None:
    first = make(name)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    torch.autograd.backward(run(first, kind))
    optimizer.step()
    first.after_step(0.5)
    second = make(name)
    before = run(second.eval(), kind)
    second.load_state_dict(first.state_dict(), strict=True)
    after = run(second.eval(), kind)
    assert after.equal(run(first.eval(), kind))
    assert not after.equal(before)


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), TRAINED_CASES)
def test_overfits_eight_sentences(make: Make, name: str, kind: str) -> None:
    method = make(name)
    optimizer = torch.optim.AdamW(method.parameters(), lr=2e-3, weight_decay=0.0)

    def mean_loss() -> float:
        with torch.no_grad():
            return float(torch.stack([run(method, kind, seed=100 + i) for i in range(4)]).mean())

    start = mean_loss()
    steps = STEPS.get(name, 30)
    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(run(method, kind, seed=step))
        optimizer.step()
        method.after_step((step + 1) / steps)
        if step % 6 == 5 and mean_loss() < 0.5 * start:
            return
    assert mean_loss() < 0.5 * start


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_forward_leaves_inputs_and_modes_as_they_are(make: Make, name: str, kind: str) -> None:
    method = make(name)
    batch = make_batch(type(method), method.encoder, kind)
    copies = {key: value.clone() for key, value in batch.items()}
    for training in (True, False):
        method.train(training)
        method(**batch)
        assert {module.training for module in method.modules()} == {training}
        assert {module.training for module in method.encoder.modules()} == {training}
    for key, value in batch.items():
        assert torch.equal(value, copies[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_building_a_method_keeps_the_mode_of_the_encoder(tiny_encoder_dir: Path, name: str) -> None:
    for training in (True, False):
        encoder = SentenceEncoder.load(tiny_encoder_dir).train(training)
        METHODS.resolve(name)(encoder, build_config(name, {}))
        assert encoder.training is training
        assert encoder.backbone.training is training


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_dropout_is_drawn_for_each_row(make: Make, name: str, kind: str) -> None:
    method = make(name)
    batch = make_batch(type(method), method.encoder, kind)
    row_ids, row_mask = batch["input_ids"][0, :1], batch["attention_mask"][0, :1]
    twins = row_ids.repeat(2, 1), row_mask.repeat(2, 1), torch.zeros(2, dtype=torch.int64)
    one, other = method.embed(*twins)
    assert (one - other).abs().max() > 1e-3
    one, other = method.eval().embed(*twins)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_one_encoder_forward_for_all_views(make: Make, name: str, kind: str) -> None:
    method = make(name)
    batch = make_batch(type(method), method.encoder, kind)
    calls: list[int] = []
    hook = method.encoder.register_forward_pre_hook(
        lambda _module, arguments: calls.append(arguments[0].shape[0])
    )
    method(**batch)
    hook.remove()
    assert len(calls) == 1
    assert calls[0] % len(SENTENCES) == 0


@pytest.mark.parametrize("name", [n for n in METHODS if "triplets" in METHODS.resolve(n).reads])
def test_absent_negatives_do_not_count(make: Make, name: str) -> None:
    method = make(name).eval()
    batch = make_batch(type(method), method.encoder, "triplets")
    expected = method(**batch).loss
    absent = ~batch["view_mask"]
    batch["input_ids"][absent] = batch["input_ids"][1, 0].clone()
    batch["attention_mask"][absent] = batch["attention_mask"][1, 0].clone()
    assert absent.any()
    torch.testing.assert_close(method(**batch).loss, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_kind_of_data_is_refused_before_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def explode(*_: object, **__: object) -> None:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(SentenceEncoder, "load", explode)
    method = METHODS.resolve(name)
    for kind in method.reads:
        check_reads(method, kind)
    for kind in set(get_args(Kind)) - set(method.reads):
        with pytest.raises(
            ConfigError, match=f"'{method.name}' cannot read '{kind}' data"
        ) as caught:
            check_reads(method, kind)
        assert all(known in str(caught.value) for known in method.reads)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_it_says_where_it_comes_from_and_what_it_takes(name: str) -> None:
    method = METHODS.resolve(name)
    assert method.name == name
    assert isinstance(method.paper, Paper)
    assert method.paper.title
    assert method.reads
    assert issubclass(method.Config, MethodConfig)
    build_config(name, {})
    for key, option in method.Config.model_fields.items():
        assert option.description, key
        assert "\n" not in option.description
        assert not option.is_required(), key


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_reference_loss_is_the_loss_of_a_collapsed_encoder(
    make: Make, name: str, kind: str
) -> None:
    method = make(name)
    negatives = HARD_NEGATIVES if kind == "triplets" else 0
    contrast = method.options.contrast(DataSpec(kind, negatives), 8)  # type: ignore[arg-type]
    assert contrast.needed is type(method.options).needs_negatives
    reference = contrast.reference_loss
    if reference is None:
        assert (contrast.in_batch, contrast.needed) == (0, False)
        return
    assert contrast.in_batch >= 7
    assert reference == pytest.approx(math.log(contrast.in_batch + 1))
    batch = make_batch(type(method), method.encoder, kind)
    batch["view_mask"][:] = True
    batch["text_ids"] = torch.arange(batch["text_ids"].numel()).view_as(batch["text_ids"])
    batch["input_ids"][:] = batch["input_ids"][0, 0].clone()
    batch["attention_mask"][:] = batch["attention_mask"][0, 0].clone()
    loss = method.eval()(**batch).loss
    assert loss.item() == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_key_is_refused_with_the_closest_name(name: str) -> None:
    key = next(iter(METHODS.resolve(name).Config.model_fields))
    with pytest.raises(ConfigError) as caught:
        build_config(name, {key[:-1]: 1})
    assert f"unknown key 'method.{key[:-1]}' (did you mean '{key}'?)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'simsce'.*did you mean 'simcse'"):
        build_config("simsce", {})


def test_table_of_methods_needs_no_torch() -> None:
    code = "import sys, simcse_kit.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_number_must_not_be_true_or_false() -> None:
    class Options(MethodConfig):
        rate: float | None = Field(default=None)
        flag: bool | None = Field(default=None)

    assert parse_config(Options, {"rate": 1, "flag": True}) == Options(rate=1.0, flag=True)
    with pytest.raises(ConfigError, match=r"method\.rate is True: must not be true or false"):
        parse_config(Options, {"rate": True})


def test_refusal_explains_every_kind_there_is() -> None:
    class Fake(Method):
        name = "fake"
        reads = get_args(Kind)

    with pytest.raises(ConfigError) as caught:
        check_reads(Fake, "pictures")
    assert all(f"{kind} = " in str(caught.value) for kind in get_args(Kind))


def test_a_loss_that_is_none_of_embeddings_is_known_as_such() -> None:
    class Whole(Method):
        name = "whole"

        def forward(self, **_: Tensor) -> MethodOutput:
            raise NotImplementedError

    class Parts(Method):
        name = "parts"

        def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
            raise NotImplementedError

    assert chunking_obstacle(Whole, MethodConfig()) is not None
    assert chunking_obstacle(Parts, MethodConfig()) is None
