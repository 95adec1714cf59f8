"""The method of graded pairs: its objectives, options and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.losses.angle import angle
from simcse_kit.losses.cosent import cosent
from simcse_kit.losses.cosine_regression import cosine_regression
from simcse_kit.losses.similarity import pair_cosine
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch, check_reads
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.graded import Graded
from simcse_kit.methods.simcse import SimCSE
from tests.meta import META, operators

SCORES = torch.tensor([1.0, 0.1, 0.6, 0.6])


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def build(encoder: SentenceEncoder, **options: Any) -> Graded:
    return Graded(encoder, build_config("graded", options))  # type: ignore[arg-type]


def batch_of(scores: Tensor | None) -> Batch:
    ids = torch.ones(4, 2, 3, dtype=torch.int64)
    return Batch(ids, ids, torch.arange(8).view(4, 2), torch.ones(4, 2, dtype=torch.bool), scores)


def vectors() -> Tensor:
    return torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))


def test_every_objective_is_its_loss(encoder: SentenceEncoder) -> None:
    pairs = vectors()
    first, second = pairs.unbind(1)
    expected = {
        "cosent": cosent(pair_cosine(first, second), SCORES, temperature=0.1),
        "angle": angle(first, second, SCORES, temperature=0.1),
        "cosine_regression": cosine_regression(pair_cosine(first, second), SCORES),
    }
    for objective, loss in expected.items():
        method = build(encoder, objective=objective, temperature=0.1)
        assert method.loss(pairs, batch_of(SCORES)).loss.equal(loss)
    assert len({loss.item() for loss in expected.values()}) == 3
    assert build_config("graded", {}).objective == "cosent"  # type: ignore[attr-defined]


def test_logs_are_the_mean_cosine_and_the_correlation(encoder: SentenceEncoder) -> None:
    pairs = vectors()
    logs = build(encoder).loss(pairs, batch_of(SCORES)).logs
    cosines = pair_cosine(*pairs.unbind(1))
    assert float(logs["mean_cosine"]) == pytest.approx(cosines.mean().item())
    expected = torch.corrcoef(torch.stack([cosines, SCORES]))[0, 1].item()
    assert float(logs["score_correlation"]) == pytest.approx(expected, abs=1e-6)
    constant = build(encoder).loss(pairs, batch_of(torch.ones(4))).logs
    assert float(constant["score_correlation"]) == 0


@pytest.mark.parametrize("objective", ["cosent", "angle", "cosine_regression"])
def test_equal_texts_with_a_low_score_are_not_pushed_apart(
    encoder: SentenceEncoder, objective: str
) -> None:
    pairs, batch = vectors(), batch_of(SCORES)
    pairs[1, 1] = pairs[1, 0] + 0.1 * pairs[0, 0]
    batch.text_ids[1, 1] = batch.text_ids[1, 0]
    leaf = pairs.requires_grad_()
    method = build(encoder, objective=objective)
    (slopes,) = torch.autograd.grad(method.loss(leaf, batch).loss, leaf)
    assert not slopes[1].any()
    assert slopes[0].any()


@pytest.mark.parametrize("objective", ["cosent", "angle", "cosine_regression"])
def test_no_value_is_read_from_an_accelerator(encoder: SentenceEncoder, objective: str) -> None:
    method = build(encoder, objective=objective, matryoshka=[3, 8])
    pairs = vectors().to(META).requires_grad_()
    batch = batch_of(SCORES).to(META)
    with operators() as counts:
        output = method.loss(pairs, batch)
        torch.autograd.backward(output.loss)
    assert output.loss.device == META
    assert counts.total() > 0


def test_prefixes_are_summed(encoder: SentenceEncoder) -> None:
    pairs, batch = vectors(), batch_of(SCORES)
    parts = [build(encoder).loss(pairs[..., :dim], batch).loss.item() for dim in (3, 8)]
    loss = build(encoder, matryoshka=[3, 8]).loss(pairs, batch).loss
    assert loss.item() == pytest.approx(sum(parts))
    with pytest.raises(ConfigError, match=f"the embeddings have {encoder.embedding_dim} dim"):
        build(encoder, matryoshka=[encoder.embedding_dim + 1])


def test_a_batch_without_scores_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="needs a score in every row"):
        build(encoder).loss(vectors(), batch_of(None))


def test_scores_that_teach_nothing_are_refused() -> None:
    options = build_config("graded", {})
    options.check_labels(SCORES)
    with pytest.raises(DataError, match="all scores are 3, so no pair") as caught:
        options.check_labels(torch.full((5,), 3.0))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="score nan is not a finite number"):
        options.check_labels(SCORES * torch.nan)


def test_one_pair_is_a_batch_only_for_the_regression() -> None:
    data = DataSpec("labelled")
    check_batch(Graded, build_config("graded", {"objective": "cosine_regression"}), data, 1)
    for objective in ("cosent", "angle"):
        with pytest.raises(ConfigError, match="compares the rows of a batch; use --batch-size 2"):
            check_batch(Graded, build_config("graded", {"objective": objective}), data, 1)


def test_a_temperature_without_effect_is_reported() -> None:
    data = DataSpec("labelled")
    options = {"objective": "cosine_regression", "temperature": 0.1}
    (sentence,) = build_config("graded", options).unused(data)
    assert "method.temperature = 0.1 has no effect" in sentence
    assert build_config("graded", {"temperature": 0.1}).unused(data) == []


def test_other_methods_name_this_one_for_scores() -> None:
    with pytest.raises(ConfigError, match=r"'simcse' cannot read 'labelled'.*--method graded"):
        check_reads(SimCSE, "labelled")
