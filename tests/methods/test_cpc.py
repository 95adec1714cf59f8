"""CPC: which sentences are compared, and missing ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.cpc import predictive_nce
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.cpc import CPC
from tests.methods.test_cluster_methods import build

ROWS, VIEWS = 5, 4


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean")


def batch(present: Tensor | None = None) -> Batch:
    ids = torch.arange(ROWS * VIEWS).view(ROWS, VIEWS)
    tokens = ids.unsqueeze(2) + 5
    mask = torch.ones(ROWS, VIEWS, dtype=torch.bool) if present is None else present
    return Batch(tokens, torch.ones_like(tokens), ids, mask)


def embeddings() -> Tensor:
    return torch.randn(ROWS, VIEWS, 32, generator=torch.Generator().manual_seed(0))


def predicted(
    predictions: Tensor, targets: Tensor, similarity: Any = "dot", temperature: float = 1.0
) -> Tensor:
    batch = ContrastiveBatch(predictions, targets, temperature=temperature)
    return predictive_nce(batch, similarity=similarity)


@pytest.mark.parametrize("options", [{}, {"similarity": "cosine", "temperature": 0.05}])
def test_each_distance_has_its_own_predictor(
    encoder: SentenceEncoder, options: dict[str, Any]
) -> None:
    method: CPC = build(encoder, "cpc", **options)
    vectors = embeddings()
    parts = [
        predicted(method.predictors[k - 1](vectors[:, 0]), vectors[:, k], **options)
        for k in (1, 2, 3)
    ]
    output = method.loss(vectors, batch())
    torch.testing.assert_close(output.loss, torch.stack(parts).mean())
    torch.testing.assert_close(output.logs["loss_at_2"], parts[1].detach())


def test_absent_sentences_count_neither_as_targets_nor_as_negatives(
    encoder: SentenceEncoder,
) -> None:
    method: CPC = build(encoder, "cpc")
    present = torch.ones(ROWS, VIEWS, dtype=torch.bool)
    present[1, 2:] = False
    present[:4, 3] = False
    vectors = embeddings()
    output = method.loss(vectors, batch(present))
    there = [0, 2, 3, 4]
    parts = [
        predicted(method.predictors[0](vectors[:, 0]), vectors[:, 1]),
        predicted(method.predictors[1](vectors[there, 0]), vectors[there, 2]),
    ]
    torch.testing.assert_close(output.loss, torch.stack(parts).mean())
    # a single sentence at distance 3 has no negatives
    assert "loss_at_3" not in output.logs
    vectors[~present] = torch.nan
    assert method.loss(vectors, batch(present)).loss.equal(output.loss)


def test_a_batch_of_last_sentences_stops_nothing(encoder: SentenceEncoder) -> None:
    method: CPC = build(encoder, "cpc")
    present = torch.zeros(ROWS, VIEWS, dtype=torch.bool)
    present[:, 0] = True
    loss = method.loss(embeddings().requires_grad_(), batch(present)).loss
    assert loss.item() == 0.0
    loss.backward()


def test_farther_sentences_are_not_embedded(encoder: SentenceEncoder) -> None:
    laid_out = build(encoder, "cpc", distances=1).layout(batch())
    assert laid_out.shape == (ROWS, 2)
    assert build(encoder, "cpc", distances=9).layout(batch()).shape == (ROWS, VIEWS)


def test_a_text_is_not_its_own_negative(encoder: SentenceEncoder) -> None:
    method: CPC = build(encoder, "cpc", distances=1)
    given = method.layout(batch())
    vectors = embeddings()[:, :2]
    given.text_ids[1, 1] = given.text_ids[0, 1]
    without = method.loss(vectors, given).loss
    vectors[1, 1] = vectors[0, 1]
    plain = method.loss(vectors, method.layout(batch())).loss
    assert method.loss(vectors, given).loss < plain
    assert without.isfinite()
