"""Margin, decoupled, spread and labelled losses against loops over their papers' equations.

And against sentence-transformers where it has the same loss.
"""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.false_negatives import Guide
from simcse_kit.losses.info_nce import contrastive_terms, info_nce
from simcse_kit.losses.margin import ranking, simple, triplet
from simcse_kit.losses.matryoshka import prefix_losses
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.losses.pair_margin import margin_contrastive, pair_distance
from simcse_kit.metrics.geometry import align_uniform

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers.sentence_transformer import losses as peers
    from sentence_transformers.sentence_transformer.losses import gist_embed

Array = NDArray[np.float64]
DIM = 5
SIZES = [(2, 0), (2, 1), (5, 0), (4, 3), (1, 2)]
MARGINS = [0.05, 0.3, 1.5]


def leaves(rows: int, k: int, seed: int = 0) -> list[Tensor]:
    """Anchors, positives near them, and hard negatives if k > 0; they are learned."""
    draw = torch.Generator().manual_seed(seed)
    anchors, noise = torch.randn(2, rows, DIM, generator=draw, dtype=torch.float64)
    parts = [anchors, anchors + 0.8 * noise]
    if k:
        parts.append(torch.randn(rows, k, DIM, generator=draw, dtype=torch.float64))
    return [part.requires_grad_() for part in parts]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def candidates(parts: list[Tensor]) -> list[tuple[float, list[float], list[float]]]:
    """Of each anchor: cosine of the positive, of all negatives, of its own hard negatives."""
    h, plus = (part.detach().numpy() for part in parts[:2])
    minus = parts[2].detach().numpy() if len(parts) > 2 else np.zeros((len(h), 0, DIM))
    rows = []
    for i in range(len(h)):
        others = [cosine(h[i], plus[j]) for j in range(len(h)) if j != i]
        hard = [cosine(h[i], minus[j, m]) for j in range(len(h)) for m in range(minus.shape[1])]
        own = [cosine(h[i], minus[i, m]) for m in range(minus.shape[1])]
        rows.append((cosine(h[i], plus[i]), others + hard, own))
    return rows


def distance(cos: float, kind: str) -> float:
    return {"cosine": 1 - cos, "squared": 2 - 2 * cos, "euclidean": math.sqrt(2 - 2 * cos)}[kind]


def paper_triplet(parts: list[Tensor], margin: float, mining: str, kind: str) -> float:
    terms = []
    for positive, negatives, own in candidates(parts):
        near = distance(positive, kind)
        far = sorted(distance(c, kind) for c in (own if mining == "given" else negatives))
        if mining == "hard":
            far = far[:1]
        elif mining == "semi-hard":
            beyond = [d for d in far if d > near]
            far = beyond[:1] or far[-1:]
        terms += [max(0.0, margin + near - d) for d in far]
    if mining == "all":
        terms = [term for term in terms if term > 0] or [0.0]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("mining", ["given", "all", "hard", "semi-hard"])
@pytest.mark.parametrize("kind", ["cosine", "squared", "euclidean"])
@pytest.mark.parametrize("margin", MARGINS)
def test_triplet_is_the_formula(mining: Any, kind: Any, margin: float) -> None:
    for seed, (rows, k) in enumerate(SIZES):
        if mining == "given" and not k:
            continue
        parts = leaves(rows, k, seed)
        loss = triplet(ContrastiveBatch(*parts), margin=margin, mining=mining, distance=kind)
        assert loss.item() == pytest.approx(paper_triplet(parts, margin, mining, kind), rel=1e-9)


@pytest.mark.parametrize(("rows", "k"), SIZES)
@pytest.mark.parametrize("margin", MARGINS)
def test_ranking_is_the_formula(rows: int, k: int, margin: float) -> None:
    parts = leaves(rows, k)
    expected = 0.0
    for positive, negatives, _ in candidates(parts):
        hinges = [max(0.0, margin - positive + c) for c in negatives]
        expected += sum(hinges) / len(hinges) / rows
    loss = ranking(ContrastiveBatch(*parts), margin=margin)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_ranking_is_that_of_torch() -> None:
    anchors, positives = leaves(6, 0)
    cosines = torch.nn.functional.cosine_similarity(anchors[:, None], positives[None], dim=2)
    others = ~torch.eye(6, dtype=torch.bool)
    own = cosines.diagonal()[:, None].expand(6, 6)[others]
    theirs = torch.nn.functional.margin_ranking_loss(
        own, cosines[others], torch.ones_like(own), margin=0.4
    )
    same_with_gradients(
        ranking(ContrastiveBatch(anchors, positives), margin=0.4), theirs, [anchors, positives]
    )


@pytest.mark.parametrize(("rows", "k"), SIZES)
@pytest.mark.parametrize("weight", [None, 0.0, 0.5, 2.0])
def test_simple_is_the_formula(rows: int, k: int, weight: float | None) -> None:
    parts = leaves(rows, k)
    expected = 0.0
    for positive, negatives, _ in candidates(parts):
        scale = 1 / len(negatives) if weight is None else weight
        expected += (scale * sum(negatives) - positive) / rows
    loss = simple(ContrastiveBatch(*parts), weight=weight)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("rows", "k"), SIZES)
@pytest.mark.parametrize("tau", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_decoupled_is_the_formula(rows: int, k: int, tau: float, alpha: float) -> None:
    parts = leaves(rows, k)
    expected = 0.0
    for positive, negatives, own in candidates(parts):
        mass = sum(math.exp(c / tau) for c in negatives)
        mass += (alpha - 1) * sum(math.exp(c / tau) for c in own)
        expected += (math.log(mass) - positive / tau) / rows
    batch = ContrastiveBatch(*parts, temperature=tau, hard_negative_alpha=alpha)
    assert decoupled_info_nce(batch).item() == pytest.approx(expected, rel=1e-9)
    if rows > 1:
        back = ContrastiveBatch(parts[1], parts[0], temperature=tau)
        expected = (expected + decoupled_info_nce(back).item()) / 2
        both = decoupled_info_nce(batch, symmetric=True).item()
        assert both == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("with_ids", [True, False])
def test_decoupled_of_both_views_is_that_of_the_paper(rows: int, with_ids: bool) -> None:
    parts, tau = leaves(rows, 0), 0.2
    views = [part.detach().numpy() for part in parts]
    expected = 0.0
    for i, k in itertools.product(range(rows), range(2)):
        mass = sum(
            math.exp(cosine(views[k][i], views[m][j]) / tau)
            for j, m in itertools.product(range(rows), range(2))
            if j != i
        )
        own = cosine(views[k][i], views[1 - k][i]) / tau
        expected += (math.log(mass) - own) / (2 * rows)
    ids = {"anchor_ids": torch.arange(rows), "positive_ids": torch.arange(rows)} if with_ids else {}
    batch = ContrastiveBatch(*parts, temperature=tau, **ids)
    assert decoupled_info_nce(batch.both_views()).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("with_ids", [True, False])
def test_info_nce_of_both_views_is_nt_xent(with_ids: bool) -> None:
    parts = leaves(6, 0)
    ids = torch.tensor([0, 1, 2, 1, 4, 5]) if with_ids else None
    batch = ContrastiveBatch(*parts, temperature=0.1, anchor_ids=ids, positive_ids=ids)
    ours = contrastive_terms(batch.both_views()).loss
    same_with_gradients(ours, nt_xent(*parts, temperature=0.1, ids=ids), parts)


# ------------------------------------------------------------------ labelled pairs


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_margin_contrastive_is_the_formula(
    rows: int, margin: float, squared: bool, metric: Any
) -> None:
    first, second = leaves(rows, 0)
    labels = torch.arange(rows) % 2
    expected = 0.0
    a, b = first.detach().numpy(), second.detach().numpy()
    for i in range(rows):
        x, y = a[i] / np.linalg.norm(a[i]), b[i] / np.linalg.norm(b[i])
        d = np.linalg.norm(x - y) if metric == "euclidean" else 1 - x @ y
        hinge = max(0.0, margin - d**2) if squared else max(0.0, margin - d) ** 2
        expected += ((1 - i % 2) * d**2 + (i % 2) * hinge) / rows
    loss = margin_contrastive(
        pair_distance(first, second, metric), labels, margin=margin, squared=squared
    )
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_label_one_is_a_dissimilar_pair() -> None:
    d = torch.tensor([0.3])
    assert margin_contrastive(d, torch.tensor([0])).item() == pytest.approx(0.09)
    assert margin_contrastive(d, torch.tensor([1])).item() == pytest.approx(0.49)
    assert margin_contrastive(d, torch.tensor([1]), squared=True).item() == pytest.approx(0.91)


def test_margin_contrastive_is_twice_that_of_sentence_transformers() -> None:
    parts, labels = leaves(8, 0), torch.arange(8) % 2
    metric = peers.SiameseDistanceMetric.COSINE_DISTANCE
    peer = peers.ContrastiveLoss(torch.nn.Identity(), distance_metric=metric, margin=0.7)  # type: ignore[arg-type]
    # Theirs has the factor one half, and label 1 for a similar pair.
    theirs = 2 * peer.compute_loss_from_embeddings(list(parts), 1 - labels)
    ours = margin_contrastive(pair_distance(*parts, "cosine"), labels, margin=0.7)
    # Theirs takes labels as float32.
    same_with_gradients(ours, theirs, parts, rtol=1e-6)


# ------------------------------------------------------------------ alignment and uniformity


@pytest.mark.parametrize("rows", [2, 6])
@pytest.mark.parametrize(("weight", "alpha", "t"), [(1.0, 2.0, 2.0), (0.3, 1.0, 5.0)])
def test_align_uniform_is_the_formula(rows: int, weight: float, alpha: float, t: float) -> None:
    parts = leaves(rows, 0)
    x, y = (part.detach().numpy() for part in parts)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    pulled = sum(np.linalg.norm(x[i] - y[i]) ** alpha for i in range(rows)) / rows
    spread = 0.0
    for v in (x, y):
        pairs = list(itertools.combinations(range(rows), 2))
        mean = sum(math.exp(-t * np.linalg.norm(v[i] - v[j]) ** 2) for i, j in pairs) / len(pairs)
        spread += math.log(mean) / 2
    loss, alignment, uniformity = align_uniform(*parts, weight=weight, alpha=alpha, t=t)
    assert alignment.item() == pytest.approx(pulled, rel=1e-9)
    assert uniformity.item() == pytest.approx(spread, rel=1e-9)
    assert loss.item() == pytest.approx(pulled + weight * spread, rel=1e-9)


# ------------------------------------------------------------------ matryoshka


def test_prefixes_are_summed_with_their_weights() -> None:
    parts = leaves(4, 0)
    stacked = torch.stack(parts, dim=1)

    def loss(vectors: Tensor) -> Tensor:
        return info_nce(vectors[:, 0], vectors[:, 1])

    total, each = prefix_losses(loss, stacked, [2, 5, 3], [0.5, 1.0, 2.0])
    alone = [info_nce(parts[0][:, :dim], parts[1][:, :dim]) for dim in (2, 5, 3)]
    assert [part.item() for part in each] == [part.item() for part in alone]
    assert total.item() == pytest.approx(
        sum(w * part.item() for w, part in zip((0.5, 1.0, 2.0), alone, strict=True)), rel=1e-12
    )


def test_prefixes_are_those_of_sentence_transformers() -> None:
    class Model(torch.nn.Module):
        def __init__(self, vectors: list[Tensor]):
            super().__init__()
            self.vectors = vectors

        def get_embedding_dimension(self) -> int:
            return DIM

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": self.vectors[int(features["number"])]}

    parts = leaves(4, 0)
    model: Any = Model(parts)
    inner = peers.MultipleNegativesRankingLoss(model, scale=20.0)
    peer = peers.MatryoshkaLoss(model, inner, [5, 3, 2], [1, 0.5, 0.25])
    theirs = peer([{"number": 0}, {"number": 1}], torch.empty(0))
    ours, _ = prefix_losses(
        lambda v: info_nce(v[:, 0], v[:, 1]), torch.stack(parts, 1), [5, 3, 2], [1, 0.5, 0.25]
    )
    same_with_gradients(ours, theirs, parts)


# ------------------------------------------------------------------ sentence-transformers


def same_with_gradients(
    ours: Tensor, theirs: Tensor, inputs: list[Tensor], rtol: float = 1e-8
) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=rtol)
    for got, expected in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("mining", "peer"),
    [
        ("hard", peers.BatchHardTripletLoss),
        ("semi-hard", peers.BatchSemiHardTripletLoss),
        ("all", peers.BatchAllTripletLoss),
    ],
)
@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
@pytest.mark.parametrize("margin", [0.1, 0.8])
def test_mined_triplets_are_those_of_sentence_transformers(
    mining: Any, peer: Any, kind: Any, margin: float
) -> None:
    rows = 6
    parts = leaves(rows, 0, seed=3)
    metrics = peers.BatchHardTripletLossDistanceFunction
    theirs = peer(
        torch.nn.Identity(),
        distance_metric=metrics.cosine_distance if kind == "cosine" else metrics.euclidean_distance,
        margin=margin,
    ).compute_loss_from_embeddings(
        [torch.nn.functional.normalize(torch.cat(parts), dim=1)], torch.arange(rows).repeat(2)
    )
    both = ContrastiveBatch(*parts).both_views()
    ours = triplet(both, margin=margin, mining=mining, distance=kind)
    same_with_gradients(ours, theirs, parts)


def test_given_triplets_are_those_of_sentence_transformers() -> None:
    parts = leaves(7, 1, seed=5)
    theirs = peers.TripletLoss(
        torch.nn.Identity(),  # type: ignore[arg-type]
        distance_metric=peers.TripletDistanceMetric.COSINE,
        triplet_margin=0.6,
    ).compute_loss_from_embeddings([*parts[:2], parts[2][:, 0]], torch.empty(0))
    batch = ContrastiveBatch(*parts)
    ours = triplet(batch, margin=0.6, mining="given", distance="cosine")
    same_with_gradients(ours, theirs, parts)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.3])
def test_guided_info_nce_is_that_of_sentence_transformers(
    monkeypatch: pytest.MonkeyPatch, k: int, margin: float
) -> None:
    parts = leaves(8, k, seed=1)
    guides = [part.detach() for part in leaves(8, k, seed=2)]
    columns = [{"live": a, "guide": b} for a, b in zip(parts, guides, strict=True)]
    for column in columns[2:]:
        column.update({name: vectors[:, 0] for name, vectors in column.items()})
    monkeypatch.setattr(gist_embed, "embed_columns", lambda who, all_: [c[who] for c in all_])
    peer: Any = object.__new__(gist_embed.GISTEmbedLoss)
    torch.nn.Module.__init__(peer)
    peer.model, peer.guide, peer.temperature, peer.margin = "live", "guide", 0.1, margin
    peer.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
    peer.cross_entropy_loss = torch.nn.CrossEntropyLoss()
    peer.margin_strategy = "absolute"
    peer.must_retokenize = peer.gather_across_devices = False
    peer.contrast_anchors = peer.contrast_positives = False
    theirs = peer(columns, torch.empty(0))
    ours = info_nce(*parts, temperature=0.1, guide=Guide(*guides, margin=margin))
    same_with_gradients(ours, theirs, parts)
    if margin >= 0:
        assert ours.item() < info_nce(*parts, temperature=0.1).item()
