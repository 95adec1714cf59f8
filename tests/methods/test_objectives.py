"""The objective as an option: what it computes, what it logs, and what it refuses beforehand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.false_negatives import Guide
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.margin import ranking, simple, triplet
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.objective import ObjectiveConfig, ObjectiveLoss
from simcse_kit.methods.common.objective_registry import OBJECTIVES, parse_objective
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.metrics.geometry import align_uniform
from simcse_kit.training.batching.gradient_cache import GradientCache

TEXTS = [
    ("the cat sat on the mat .", "a cat sat", "the dog sat"),
    ("a man is playing guitar", "the man is playing music", "a woman eats"),
    ("dog ran", "the dog ran under a tree", "the car"),
    ("old red house", "a house", "new blue car ?"),
]
CALLS = [
    "info_nce",
    "info_nce(symmetric=True)",
    "nt_xent",
    "decoupled",
    "decoupled(both_views=True)",
    "decoupled(symmetric=True)",
    "triplet",
    "triplet(margin=1.0, mining='given', distance='cosine')",
    "triplet(mining='semi-hard')",
    "triplet(mining='all', distance='euclidean')",
    "ranking(margin=0.4)",
    "simple",
    "simple(0.5)",
    "align_uniform",
]


def kind_of(call: str) -> str:
    return "triplets" if parse_objective(call).hard_negatives == "needed" else "pairs"


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def batch_of(encoder: SentenceEncoder, views: int = 2) -> Batch:
    texts = [text for row in TEXTS for text in row[:views]]
    encoded = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    shape = (len(TEXTS), views)
    known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return Batch(
        encoded["input_ids"].unflatten(0, shape),
        encoded["attention_mask"].unflatten(0, shape),
        torch.tensor([known[text] for text in texts]).view(shape),
        torch.ones(shape, dtype=torch.bool),
    )


def build(encoder: SentenceEncoder, **options: Any) -> SimCSE:
    torch.manual_seed(0)
    config = build_config("simcse", options)
    return SimCSE(encoder, config).train()  # type: ignore[arg-type]


def drawn(rows: int, views: int, dim: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, views, dim, generator=source, dtype=torch.float64)


# ------------------------------------------------------------------ what is computed


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("info_nce", lambda b: info_nce(b.anchors, b.positives, b.hard_negatives, temperature=0.1)),
        (
            "info_nce(symmetric=True)",
            lambda b: info_nce(
                b.anchors, b.positives, b.hard_negatives, temperature=0.1, symmetric=True
            ),
        ),
        ("nt_xent", lambda b: nt_xent(b.anchors, b.positives, temperature=0.1)),
        ("decoupled", decoupled_info_nce),
        ("decoupled(symmetric=True)", lambda b: decoupled_info_nce(b, symmetric=True)),
        ("decoupled(both_views=True)", lambda b: decoupled_info_nce(b.both_views())),
        ("triplet(margin=0.5)", lambda b: triplet(b, margin=0.5)),
        ("triplet(1.0, 'given')", lambda b: triplet(b, margin=1.0, mining="given")),
        ("ranking(margin=0.2)", lambda b: ranking(b, margin=0.2)),
        ("simple(weight=0.5)", lambda b: simple(b, weight=0.5)),
        (
            "align_uniform(0.5, t=3.0)",
            lambda b: align_uniform(b.anchors, b.positives, weight=0.5, t=3.0)[0],
        ),
    ],
)
def test_a_call_is_the_loss_of_that_name(
    encoder: SentenceEncoder, call: str, expected: Any
) -> None:
    views = 2 if parse_objective(call).hard_negatives == "refused" else 3
    batch = batch_of(encoder, views)
    vectors = drawn(4, views, 8)
    module = ObjectiveLoss(ObjectiveConfig(objective=call, temperature=0.1), encoder)
    loss = module(vectors, batch).loss
    hard = vectors[:, 2:] if views > 2 else None
    contrast = ContrastiveBatch(vectors[:, 0], vectors[:, 1], hard, temperature=0.1)
    assert loss.item() == pytest.approx(expected(contrast).item(), rel=1e-9)


@pytest.mark.parametrize("call", CALLS)
def test_it_trains_alone_and_in_chunks(encoder: SentenceEncoder, call: str) -> None:
    method = build(encoder, objective=call, dropout=0.0).double()
    batch = batch_of(encoder, 3 if kind_of(call) == "triplets" else 2)
    whole = method(**vars(batch))
    assert whole.loss.shape == ()
    assert whole.loss.isfinite()
    torch.autograd.backward(whole.loss)
    expected = [weight.grad for weight in method.parameters()]
    assert all(gradient is not None and gradient.any() for gradient in expected)
    method.zero_grad()
    torch.autograd.backward(GradientCache(24)(method, batch).loss)
    found = [weight.grad for weight in method.parameters()]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    for value in whole.logs.values():
        assert math.isfinite(float(value))
        assert not (isinstance(value, Tensor) and (value.requires_grad or value.dim()))


@pytest.mark.parametrize("call", CALLS)
def test_the_loss_is_float32(encoder: SentenceEncoder, call: str) -> None:
    method = build(encoder, objective=call)
    views = 3 if kind_of(call) == "triplets" else 2
    assert method(**vars(batch_of(encoder, views))).loss.dtype == torch.float32


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("matryoshka", [[], [3, 8]])
def test_collapsed_is_the_loss_where_all_vectors_are_one(
    encoder: SentenceEncoder, call: str, matryoshka: list[int]
) -> None:
    views = 3 if kind_of(call) == "triplets" else 2
    batch = batch_of(encoder, views)
    config = ObjectiveConfig(objective=call, matryoshka=matryoshka)
    module = ObjectiveLoss(config, encoder)
    output = module(torch.ones(4, views, 8), batch)
    assert output.loss.item() == pytest.approx(module.collapsed(4, views - 2), abs=1e-5)
    if "ln_batch" in output.logs:
        assert output.logs["ln_batch"] == module.collapsed(4, views - 2)
    else:
        assert (call, matryoshka) == ("info_nce", [])


def test_repeated_texts_are_not_spread(encoder: SentenceEncoder) -> None:
    batch = batch_of(encoder)
    batch.text_ids[2] = batch.text_ids[0]
    batch.text_ids[3, 1] = batch.text_ids[1, 1]
    vectors = drawn(4, 2, 8)
    module = ObjectiveLoss(ObjectiveConfig(objective="align_uniform"), encoder)
    kept = vectors[[0, 1]]
    expected, *_ = align_uniform(kept[:, 0], kept[:, 1])
    assert module(vectors, batch).loss.item() == pytest.approx(expected.item(), rel=1e-9)
    batch.text_ids[:] = 0
    alone = module(vectors, batch)
    assert alone.loss.item() == pytest.approx(
        (unit(vectors[0, 0]) - unit(vectors[0, 1])).square().sum().item()
    )
    assert float(alone.logs["uniformity"]) == 0


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


# ------------------------------------------------------------------ a learned temperature


def test_a_temperature_is_learned_and_kept_in_bounds(encoder: SentenceEncoder) -> None:
    method = build(encoder, learn_temperature=True, temperature=0.05)
    assert method.objective.log_scale is not None
    output = method(**vars(batch_of(encoder)))
    fixed = build(encoder, temperature=0.05)
    torch.manual_seed(0)
    here = method(**vars(batch_of(encoder))).loss
    torch.manual_seed(0)
    assert here.item() == pytest.approx(fixed(**vars(batch_of(encoder))).loss.item(), rel=1e-5)
    assert float(output.logs["temperature"]) == pytest.approx(0.05)
    torch.autograd.backward(output.loss)
    assert method.objective.log_scale.grad is not None
    for start, expected in [(10.0, 0.01), (-3.0, 1.0), (2.0, math.exp(-2.0))]:
        method.objective.log_scale.data.fill_(start)
        method.after_step(0.5)
        assert method.objective.temperature.item() == pytest.approx(expected)  # type: ignore[union-attr]


def test_a_learned_temperature_is_part_of_the_state(encoder: SentenceEncoder) -> None:
    first = build(encoder, learn_temperature=True)
    first.objective.log_scale.data.fill_(1.5)  # type: ignore[union-attr]
    second = build(encoder, learn_temperature=True)
    second.load_state_dict(first.state_dict(), strict=True)
    assert second.objective.temperature.item() == pytest.approx(math.exp(-1.5))  # type: ignore[union-attr]


def test_the_default_adds_nothing_to_the_state(encoder: SentenceEncoder) -> None:
    assert not [key for key in build(encoder).state_dict() if key.startswith("objective")]


# ------------------------------------------------------------------ matryoshka


def test_prefixes_are_trained_and_logged(encoder: SentenceEncoder) -> None:
    options = {"head": "none", "matryoshka": [2, 8], "matryoshka_weights": [0.5, 1.0]}
    method = build(encoder, dropout=0.0, **options)
    batch = batch_of(encoder)
    output = method(**vars(batch))
    vectors = method.embed(*batch.rows(), batch.view_numbers()).view(4, 2, -1)
    for dim in (2, 8):
        part = info_nce(vectors[:, 0, :dim], vectors[:, 1, :dim])
        assert float(output.logs[f"loss_{dim}"]) == pytest.approx(part.item(), rel=1e-4)
    total = 0.5 * float(output.logs["loss_2"]) + float(output.logs["loss_8"])
    assert output.loss.item() == pytest.approx(total, rel=1e-6)


def test_prefixes_beyond_the_width_are_refused(encoder: SentenceEncoder) -> None:
    width = encoder.embedding_dim
    with pytest.raises(ConfigError, match=f"but the embeddings have {width} dimensions"):
        build(encoder, head="none", matryoshka=[4, width + 1])


# ------------------------------------------------------------------ a guide


def test_a_guide_takes_out_what_it_finds_too_close(
    encoder: SentenceEncoder, tiny_encoder_dir: Path
) -> None:
    batch = batch_of(encoder, 3)
    vectors = drawn(4, 3, 8).float()
    model = SentenceEncoder.load(tiny_encoder_dir)
    texts = [text for row in TEXTS for text in row]
    theirs = model.encode(texts, to="torch").view(4, 3, -1)
    config = ObjectiveConfig(guide=str(tiny_encoder_dir), guide_margin=0.05)
    found = ObjectiveLoss(config, encoder)(vectors, batch).loss
    guide = Guide(theirs[:, 0], theirs[:, 1], theirs[:, 2:], margin=0.05)
    columns = vectors[:, 0], vectors[:, 1], vectors[:, 2:]
    assert found.item() == pytest.approx(info_nce(*columns, guide=guide).item(), rel=1e-5)
    assert found.item() < info_nce(*columns).item()


def test_a_guide_is_frozen_and_not_in_the_checkpoint(
    encoder: SentenceEncoder, tiny_encoder_dir: Path
) -> None:
    method = build(encoder, guide=str(tiny_encoder_dir))
    assert list(method.state_dict()) == list(build(encoder).state_dict())
    torch.autograd.backward(method(**vars(batch_of(encoder))).loss)
    guide: Any = method.objective._guide
    assert not guide._model.training
    assert not any(weight.requires_grad for weight in guide._model.parameters())


def test_a_guide_that_cannot_read_the_tokens_is_refused(
    encoder: SentenceEncoder, tiny_encoder_dir: Path
) -> None:
    with pytest.raises(ModelError):
        build(encoder, guide="/no/such/model")
    encoder.tokenizer.add_tokens(["wordling"])
    with pytest.raises(ConfigError, match="its tokenizer has another vocabulary; use a guide"):
        build(encoder, guide=str(tiny_encoder_dir))


def test_a_guide_of_another_case_is_refused(
    encoder: SentenceEncoder, tiny_encoder_dir: Path
) -> None:
    encoder.prompt = "query: "
    with pytest.raises(ConfigError, match="its prompt is '' and the encoder's 'query: '"):
        build(encoder, guide=str(tiny_encoder_dir))


# ------------------------------------------------------------------ what is refused beforehand


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "infonce"}, "unknown objective 'infonce' (did you mean 'info_nce'?); known"),
        ({"objective": "triplet("}, "which cannot be read"),
        ({"objective": "simple|triplet"}, "give one objective, not a chain"),
        ({"objective": "triplet(mergin=1)"}, "triplet does not take these arguments"),
        ({"objective": "triplet(margin=0)"}, "triplet: margin is 0; give a number above 0"),
        ({"objective": "triplet(margin=True)"}, "triplet: margin is True; give a number above 0"),
        ({"objective": "triplet(margin='wide')"}, "margin is 'wide'; give a number above 0"),
        ({"objective": "triplet(mining='soft')"}, "mining is 'soft'; use 'given', 'all', 'hard'"),
        ({"objective": "triplet(distance='l1')"}, "distance is 'l1'; use 'cosine'"),
        ({"objective": "ranking(0)"}, "ranking: margin is 0"),
        ({"objective": "simple(weight=-1)"}, "simple: weight is -1"),
        ({"objective": "align_uniform(t=0)"}, "align_uniform: t is 0"),
        ({"objective": "info_nce(symmetric='no')"}, "symmetric is 'no'; use True, False"),
        ({"objective": "decoupled(True, True)"}, "both_views is symmetric already"),
        ({"objective": "simple", "learn_temperature": True}, "has no temperature; set it to false"),
        ({"learn_temperature": True, "temperature": 2.0}, "must be 0.01 to 1.0"),
        ({"objective": "triplet", "hard_negative_alpha": 2.0}, "has no part in method.objective"),
        (
            {"objective": "align_uniform", "guide": "x"},
            "takes no negatives out of method.objective",
        ),
        ({"guide_margin": 0.1}, "was given without method.guide"),
        ({"head": "none", "matryoshka": [0]}, "matryoshka is [0]; give different numbers"),
        ({"head": "none", "matryoshka_weights": [1.0]}, "matryoshka is []; give different numbers"),
        ({"matryoshka": [4]}, "head, which is dropped after training; set method.mlp_only_train"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config("simcse", options)
    assert message in str(caught.value)
    assert "method." in str(caught.value) or "matryoshka" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["texts", "pairs", "triplets"])
@pytest.mark.parametrize("call", CALLS)
def test_data_that_an_objective_cannot_use_is_refused_before_weights_are_loaded(
    call: str, kind: Any
) -> None:
    config = build_config("simcse", {"objective": call})
    wants = parse_objective(call).hard_negatives
    if wants != ("refused" if kind == "triplets" else "needed"):
        check_batch(SimCSE, config, DataSpec(kind, int(kind == "triplets")), 4)
        return
    with pytest.raises(ConfigError, match="hard negatives") as caught:
        check_batch(SimCSE, config, DataSpec(kind, int(kind == "triplets")), 4)
    assert "\n" not in str(caught.value)


def test_every_objective_is_tried_here() -> None:
    assert {call.partition("(")[0] for call in CALLS} == set(OBJECTIVES)
