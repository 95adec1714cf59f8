"""No method may push equal texts apart, whatever it compares: in the batch or with a queue.

Heads are taken out and embeddings are made of their Gram matrix, so that the derivative of the loss
by a single similarity, all others fixed, can be read off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.objective_registry import OBJECTIVES, parse_objective
from tests.contracts.test_methods import HARD_NEGATIVES, NAMES, make_batch

ROWS = 6
# Two of the rows have no equal text, so that there is always something to push apart.
CASES: dict[str, dict[tuple[int, int], tuple[int, int]]] = {
    "equal anchors": {(1, 0): (0, 0)},
    "equal positives": {(1, 1): (0, 1)},
    "anchor and its own positive": {(0, 1): (0, 0)},
    "anchor and the positive of another row": {(2, 0): (0, 1)},
    "hard negative and its own anchor": {(0, 2): (0, 0)},
    "hard negative and its own positive": {(0, 2): (0, 1)},
    "hard negative and the positive of another row": {(1, 2): (0, 1)},
    "hard negative and the anchor of another row": {(1, 2): (0, 0)},
    "equal hard negatives": {(1, 2): (0, 2)},
    "all texts of three rows": {
        (row, view): (0, 0) for row in range(3) for view in range(2 + HARD_NEGATIVES)
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cpc": {"distances": 2},
    "diffcse": {"rtd_weight": 0.0},
    "distill": {"cosine_weight": 0.0},
    "esimcse": {"queue_size": 16, "dup_rate": 0.0},
    "margin_contrastive": {"margin": 2.0},
    "moco": {"queue_size": 16, "in_batch": True},
    "prototypical": {"queue_size": 30, "clusters": [2]},
    "simcse": {"head": "none"},
}
# Only equal texts are compared here: positives are anchors too, and one text may be the positive
# of several; CPC wants the one text at a distance; labelled pairs and distillation have no
# positives.
EQUAL_ONLY = ("simclr", "consert", "cpc", "margin_contrastive", "distill")
OBJECTIVE_CALLS = [
    "info_nce",
    "info_nce(symmetric=True)",
    "nt_xent",
    "decoupled",
    "decoupled(symmetric=True)",
    "decoupled(both_views=True)",
    *(f"triplet(margin=1.9, mining='{m}')" for m in ("given", "all", "hard", "semi-hard")),
    "ranking(margin=1.9)",
    "simple",
    "align_uniform",
]


def build(encoder: SentenceEncoder, name: str, **options: Any) -> Method:
    method: Method = METHODS.resolve(name)(
        encoder, build_config(name, OPTIONS.get(name, {}) | options)
    )
    for head in ("head", "key_head", "projector", "predictor"):
        if isinstance(getattr(method, head, None), nn.Module):
            setattr(method, head, nn.Identity())
    if name == "cpc":
        method.predictors = nn.ModuleList(nn.Identity() for _ in range(2))
    return method.double().train()


def case_batch(method: Method, kind: str, equal: dict[tuple[int, int], tuple[int, int]]) -> Batch:
    """The method's own layout of six rows, where the given texts are equal, all others not."""
    tensors = {
        key: part[:ROWS] for key, part in make_batch(type(method), method.encoder, kind).items()
    }
    ids = torch.arange(1, tensors["text_ids"].numel() + 1).view(tensors["text_ids"].shape)
    views = ids.shape[1]
    for (row, view), (source, source_view) in equal.items():
        if view < views and source_view < views:
            ids[row, view] = ids[source, source_view]
    tensors["text_ids"] = ids
    tensors["view_mask"] = torch.ones_like(tensors["view_mask"])
    if "labels" in tensors:
        tensors["labels"] = torch.ones(ROWS)  # dissimilar, all of them
    return method.layout(Batch(**tensors))


def pushes(method: Method, batch: Batch, queue_ids: Tensor | None = None) -> Tensor:
    """(n, n) derivative of the loss by each similarity: above 0 is pushed apart.

    n are the texts of the batch, row by row, then those in the queue.
    """
    rows, views = batch.shape
    queued = 0 if queue_ids is None else len(queue_ids)
    count = rows * views + queued
    torch.manual_seed(1)
    start = nn.functional.normalize(torch.randn(count, 2 * count, dtype=torch.float64), dim=1)
    gram = (start @ start.T).requires_grad_()
    vectors = torch.linalg.cholesky((gram + gram.T) / 2)
    queue: Any = getattr(method, "queue", None)
    if queue is not None:
        queue.keys = vectors[rows * views :]
        queue.ids = torch.zeros(0) if queue_ids is None else queue_ids
        queue.state.copy_(torch.tensor([queued, queued]))
    embeddings = vectors[: rows * views].view(rows, views, -1)
    with pytest.MonkeyPatch.context() as patch:
        # Keys without gradient would leave out their side of a similarity.
        patch.setattr(Tensor, "detach", lambda tensor: tensor)
        (slope,) = torch.autograd.grad(method.loss(embeddings, batch).loss, gram)
    return slope + slope.T


def forbidden(batch: Batch, queue_ids: Tensor | None, *, partners: bool) -> Tensor:
    """(n, n) bool: texts that are equal and, of anchors, what equals their positive."""
    texts = batch.text_ids.flatten()
    if queue_ids is not None:
        texts = torch.cat([texts, queue_ids])
    equal = texts.unsqueeze(0) == texts.unsqueeze(1)
    if partners:
        views = batch.shape[1]
        for row in range(batch.shape[0]):
            equal[row * views] |= texts == batch.text_ids[row, 1]
    return equal & ~torch.eye(len(texts), dtype=torch.bool)


def check(method: Method, kind: str, case: str, *, queued: bool = False, partners: bool) -> None:
    batch = case_batch(method, kind, CASES[case])
    queue_ids = None
    if queued:  # the texts of the batch, once more, and one of its own
        queue_ids = torch.cat([batch.text_ids[:, 0], batch.text_ids[:, 1], torch.tensor([99])])
    slopes = pushes(method, batch, queue_ids)
    where = forbidden(batch, queue_ids, partners=partners)
    assert float(slopes[where].max()) <= 1e-12 if where.any() else True
    if method.options.needs_negatives:
        assert float(slopes[~where].max()) > 1e-6


def method_cases() -> Iterator[Any]:
    for name in NAMES:
        for kind in METHODS.resolve(name).reads:
            yield pytest.param(name, kind, id=f"{name.rpartition(':')[2]}-{kind}")


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def test_every_objective_is_looked_at() -> None:
    assert {call.partition("(")[0] for call in OBJECTIVE_CALLS} == set(OBJECTIVES)


@pytest.mark.parametrize(("name", "kind"), list(method_cases()))
def test_equal_texts_are_no_negatives(encoder: SentenceEncoder, name: str, kind: str) -> None:
    # These have no vectors of other rows in their loss; SwAV compares with prototypes alone.
    if name in ("byol", "simsiam", "swav"):
        assert not METHODS.resolve(name).Config.needs_negatives
        return
    for case in CASES:
        check(build(encoder, name), kind, case, partners=name not in EQUAL_ONLY)


@pytest.mark.long
@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("name", ["moco", "esimcse", "prototypical"])
def test_equal_texts_in_the_queue_are_no_negatives(
    encoder: SentenceEncoder, name: str, in_batch: bool
) -> None:
    options = {"in_batch": in_batch} if name == "moco" else {}
    for kind in METHODS.resolve(name).reads:
        for case in CASES:
            check(build(encoder, name, **options), kind, case, queued=True, partners=True)


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVE_CALLS)
@pytest.mark.parametrize("kind", ["texts", "pairs", "triplets"])
def test_equal_texts_are_no_negatives_of_an_objective(
    encoder: SentenceEncoder, objective: str, kind: str
) -> None:
    wants = parse_objective(objective).hard_negatives
    if (wants == "needed" and kind != "triplets") or (wants == "refused" and kind == "triplets"):
        return
    two_way = any(part in objective for part in ("symmetric", "nt_xent", "both_views", "align"))
    for case in CASES:
        check(build(encoder, "simcse", objective=objective), kind, case, partners=not two_way)
