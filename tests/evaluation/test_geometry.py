"""Geometry of a pair set against plain NumPy."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from simcse_kit.evaluation.geometry import alignment_uniformity, geometry, positives
from simcse_kit.evaluation.pair_set import PairSet
from tests.evaluation.synthetic import BagOfWords

PAIRS = PairSet(
    "made up",
    ["the cat sat", "a dog ran", "the cat sat", "old tree"],
    ["a cat sat", "a dog slept", "the cat sat", "new house"],
    np.array([4.2, 4.0, 5.0, 0.0]),
)
SIDES = (PAIRS.sentences1, PAIRS.sentences2)


def units(encoder: BagOfWords, sentences: list[str]) -> np.ndarray:
    x = encoder.encode(sentences)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_against_numpy(encoder: BagOfWords) -> None:
    found = geometry(encoder.encode, PAIRS, "a set")
    first, second = (units(encoder, [side[0], side[2]]) for side in SIDES)
    assert found.alignment == pytest.approx(((first - second) ** 2).sum(axis=1).mean())
    cloud = units(encoder, sorted({*PAIRS.sentences1, *PAIRS.sentences2}))
    assert found.sentences == len(cloud) == 6
    expected = np.log(np.mean(np.exp(-2 * pdist(cloud, "sqeuclidean"))))
    assert found.uniformity == pytest.approx(expected)
    assert found.mean_cosine == pytest.approx((cloud @ cloud.T)[np.triu_indices(6, 1)].mean())
    assert found.dimension_std == pytest.approx(cloud.std(axis=0).mean())
    assert 1 < found.effective_rank <= 5
    assert found.positives == 2
    assert found.source == "a set: 2 positive pairs (gold > 4), 6 distinct sentences"
    short = alignment_uniformity(encoder.encode, PAIRS)
    assert short == (found.alignment, found.uniformity)


@pytest.mark.parametrize(
    ("scale", "gold", "expected"),
    [
        ((0.0, 5.0), [4.0, 4.001], [False, True]),
        ((1.0, 5.0), [4.0, 4.1], [False, True]),
        ((0.0, 1.0), [0.8, 0.81], [False, True]),
        ((0.0, 100.0), [80, 81], [False, True]),
    ],
)
def test_the_threshold(scale, gold, expected) -> None:
    pairs = PairSet("x", ["a", "b"], ["c", "d"], np.array(gold, dtype=float), scale)
    assert positives(pairs).tolist() == expected


def test_no_positives_is_nan_with_a_log_line(
    encoder: BagOfWords, caplog: pytest.LogCaptureFixture
) -> None:
    low = PairSet("low", ["a", "b"], ["c", "d"], np.array([1.0, 4.0]))
    with caplog.at_level(logging.WARNING):
        found = geometry(encoder.encode, low, "low")
    assert math.isnan(found.alignment)
    assert found.positives == 0
    assert math.isfinite(found.uniformity)
    assert "no pair of low has a grade above 4" in caplog.text


def test_of_a_large_set_pairs_are_drawn_and_that_is_said(
    encoder: BagOfWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simcse_kit.evaluation.geometry.MOST_SENTENCES", 20)
    first, second = ([f"{side} w{number}" for number in range(50)] for side in ("a", "b"))
    pairs = PairSet("large", first, second, 4.5 + np.arange(50) / 100)
    found = geometry(encoder.encode, pairs, "large")
    assert found.source.startswith("large (10 of 50 pairs, drawn): ")
    assert found.sentences == 20
    assert geometry(encoder.encode, pairs, "large") == found
    small = PairSet("small", first[:10], second[:10], pairs.gold[:10], pairs.scale)
    assert "drawn" not in geometry(encoder.encode, small, "small").source
