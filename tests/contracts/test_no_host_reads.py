"""A training step of every method on an accelerator, in which the host reads no value from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.kernels import KERNELS
from simcse_kit.encoder.row_lengths import lengths_of
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.info_nce_chunked import strip_width
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import chunking_obstacle
from simcse_kit.methods.consert import ConSERT, Perturbation
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.utils.host_copies import host_copy, known_on_host, remember, send_known
from tests.contracts.test_methods import OPTIONS, make_batch
from tests.meta import META, operators

# Further options of the methods: branches with their own losses, masks, queues and random draws.
MORE: list[tuple[str, str, dict[str, Any]]] = [
    ("simcse", "texts", {"mlm_weight": 0.1}),
    ("simcse", "triplets", {"mlm_weight": 0.1, "hard_negative_alpha": 0.5}),
    ("simcse", "triplets", {"learn_temperature": True, "head": "none", "matryoshka": [8, 16]}),
    ("simcse", "triplets", {"guide": ""}),
    *(
        ("simcse", "pairs", {"objective": objective})
        for objective in (
            "info_nce(symmetric=True)",
            "nt_xent",
            "decoupled(symmetric=True)",
            "triplet(mining='semi-hard')",
            "ranking",
            "simple",
            "align_uniform",
        )
    ),
    ("consert", "pairs", {"views": ["shuffle|cutoff(0.3)|noise(0.1)", "dropout(0.2)|shuffle"]}),
    ("diffcse", "texts", {"fill": "argmax", "head": "batchnorm"}),
    ("diffcse", "texts", {"rtd_weight": 0.0}),
    ("promptbert", "triplets", {"remove_bias": False}),
    ("swav", "pairs", {"queue_size": 16, "queue_start": 0.0}),
    ("prototypical", "pairs", {"warmup": 0.0, "every": 4, "queue_size": 20, "clusters": [2]}),
    ("moco", "texts", {"in_batch": True}),
    ("margin_contrastive", "labelled", {"matryoshka": [8, 16]}),
    ("distill", "texts", {"mse_weight": 1.0}),
]
CASES = [(name, kind, {}) for name in METHODS for kind in METHODS.resolve(name).reads] + MORE
# Those that embed rows in different ways; the loss is that of the whole batch.
CHUNKED = [
    case
    for case in CASES
    if case[0] != "diffcse" and not {"mlm_weight", "objective"} & case[2].keys()
]
# Most operators of one strip of InfoNCE, of which three are products of large matrices.
OPERATORS_A_STRIP = 80


def identity(case: tuple[str, str, dict[str, Any]]) -> str:
    name, kind, options = case
    return " ".join([name, kind, *map(str, options.values())])


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an operator of the same shape in the place of the kernels, which meta does not have."""

    def attention(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
        return query * value.mean()

    for name in KERNELS:
        monkeypatch.setitem(KERNELS, name, attention)


def on_accelerator(folder: Path, name: str, kind: str, options: dict[str, Any]) -> Any:
    """Build a method that has trained for some steps, and a batch as the collator makes it."""
    torch.manual_seed(0)
    encoder = SentenceEncoder.load(folder)
    options = OPTIONS.get(name, {}) | options
    if "guide" in options:
        options = options | {"guide": str(folder)}
    method: Any = METHODS.resolve(name)(encoder, build_config(name, options)).train()
    batch = make_batch(type(method), encoder, kind)
    batch["text_ids"][5] = batch["text_ids"][2]
    # The queues of 20 keys are full after 3 steps.
    for step in range(4):
        method(**batch)
        method.after_step(step / 10)
    buffers = list(method.buffers())
    method.to(META)
    if "guide" in options:
        method.objective.guide.model.to(META)
    # The host reads the state once after a start, and the copy is remembered.
    for buffer, values in zip(method.buffers(), buffers, strict=True):
        remember(buffer, values)
    inputs: dict[str, Any] = {
        name: part.to(META, non_blocking=True) for name, part in batch.items()
    }
    inputs["host"] = {name: part.numpy() for name, part in batch.items()}
    inputs["lengths"] = batch["attention_mask"].sum(dim=2).numpy()
    return method, inputs


def train(method: Method, output: MethodOutput) -> None:
    torch.autograd.backward(output.loss)
    method.after_step(0.5)
    for name, value in output.logs.items():
        assert not isinstance(value, Tensor) or value.dim() == 0, name


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=map(identity, CASES))
def test_a_step_reads_nothing(
    tiny_encoder_dir: Path, name: str, kind: str, options: dict[str, Any]
) -> None:
    method, inputs = on_accelerator(tiny_encoder_dir, name, kind, options)
    with operators():
        for _ in range(2):
            train(method, method(**inputs))
    assert all(weight.grad is not None for weight in method.encoder.parameters())


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind", "options"), CHUNKED, ids=map(identity, CHUNKED))
def test_a_step_in_chunks_reads_nothing(
    tiny_encoder_dir: Path, name: str, kind: str, options: dict[str, Any]
) -> None:
    method, inputs = on_accelerator(tiny_encoder_dir, name, kind, options)
    assert chunking_obstacle(type(method), method.options) is None
    with operators():
        train(method, GradientCache(80)(method, Batch(**inputs)))


def test_a_batch_sent_to_a_device_is_still_known_on_the_host(tiny_encoder_dir: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    method = METHODS.resolve("promptbert")
    batch = Batch(**make_batch(method, encoder, "triplets"))
    lengths = batch.attention_mask.sum(dim=2)
    with operators():
        there = batch.to(META).take_views([2, 0]).repeat_views(2)
        back = there.on_host()
        assert lengths_of(there.rows()[1]) == lengths[:, [2, 2, 0, 0]].flatten().tolist()
        assert torch.equal(back.text_ids, batch.text_ids[:, [2, 2, 0, 0]])
        assert torch.equal(back.input_ids, batch.input_ids[:, [2, 2, 0, 0]])


def test_a_method_of_a_user_may_read_values() -> None:
    """What only the device knows is read from it, which waits and is no error."""

    class Reads(torch.Tensor):
        def cpu(self) -> Tensor:
            return torch.tensor([3])

    unknown = torch.zeros(1, device=META).as_subclass(Reads)
    assert known_on_host(unknown) is None
    assert host_copy(unknown).item() == 3
    assert known_on_host(unknown) is not None
    unknown.add_(1)
    assert known_on_host(unknown) is None


# ---------------------------------------------------------------- the same numbers as on the CPU


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the CPU take the branches of an accelerator from the call on."""

    def change() -> None:
        for module in [module for name, module in sys.modules.items() if "simcse_kit" in name]:
            if hasattr(module, "reads_are_free"):
                monkeypatch.setattr(module, "reads_are_free", lambda _device: False)

    return change


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("simcse", "triplets", {"mlm_weight": 1.0}),
        ("simcse", "pairs", {"objective": "align_uniform"}),
        ("diffcse", "texts", {"fill": "argmax"}),
        ("promptbert", "triplets", {}),
        ("consert", "pairs", {}),
        ("swav", "texts", {}),
    ],
)
def test_an_accelerator_computes_what_the_cpu_computes(
    tiny_encoder_dir: Path,
    costly: Callable[[], None],
    name: str,
    kind: str,
    options: dict[str, Any],
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    options = OPTIONS.get(name, {}) | options
    method: Method = METHODS.resolve(name)(encoder, build_config(name, options)).double().train()
    encoder.set_dropout(0.0)
    if isinstance(method, ConSERT):
        # Without random numbers, of which an accelerator draws more.
        changes = (lambda states: states * 2, lambda states: states + 1)
        method.perturbations = [Perturbation(False, (change,)) for change in changes]
    batch = make_batch(type(method), encoder, kind)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        method.zero_grad()
        output = method(**batch)
        torch.autograd.backward(output.loss)
        gradients = {n: w.grad for n, w in method.named_parameters() if w.grad is not None}
        numbers = {key: float(value) for key, value in output.logs.items()}
        found.append((output.loss.detach(), numbers, gradients))
        costly()
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-9)


def test_equal_texts_are_excluded_without_reads(costly: Callable[[], None]) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, (4, 12), generator=generator)
    mask = torch.rand(12, 1, generator=generator) > 0.4
    vectors = torch.randn(4, 12, 8, generator=generator, dtype=torch.float64)

    def terms() -> list[Tensor]:
        anchors, positives, negatives, queue = vectors.clone().requires_grad_().unbind()
        batch = ContrastiveBatch(
            anchors, positives, negatives.unsqueeze(1), negative_mask=mask, anchor_ids=ids[0],
            positive_ids=ids[1], negative_ids=ids[2].unsqueeze(1), queue=queue, queue_ids=ids[3],
        )  # fmt: skip
        loss = info_nce(batch, strip=5).loss
        return [loss, *torch.autograd.grad(loss, [anchors, positives, negatives, queue])]

    expected = terms()
    costly()
    torch.testing.assert_close(terms(), expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- InfoNCE in strips


@pytest.mark.long
def test_large_batches_need_few_operators_and_little_memory() -> None:
    rows, dim = 65_536, 384
    assert strip_width(rows, rows, dim, META) == 1024  # 256 MB of float32
    assert strip_width(100, 100, dim, META) == 100
    ids = torch.arange(rows)
    batch = ContrastiveBatch(
        *torch.empty(2, rows, dim, device=META, requires_grad=True).unbind(),
        anchor_ids=send_known(ids, META),
        positive_ids=send_known(ids, META),
    )
    with operators() as counts:
        torch.autograd.backward(info_nce(batch).loss)
    strips = rows // 1024
    assert sum(counts.values()) <= OPERATORS_A_STRIP * strips + 300, counts
    products = counts["aten.mm.default"] + counts["aten.mm.out"] + counts["aten.addmm_.default"]
    assert products == 3 * strips
