"""Comparison of encoders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import AVERAGE, Report
from simcse_kit.evaluation.statistics.comparison import compare_reports
from simcse_kit.evaluation.statistics.error_analysis import slices
from simcse_kit.evaluation.statistics.seeds import compare_systems
from simcse_kit.evaluation.statistics.tables import render_comparison, render_systems
from simcse_kit.evaluation.tasks.load import load_tasks
from tests.evaluation.synthetic import BagOfWords


class Noisy(BagOfWords):
    """A bag of words with noise of its own for each sentence."""

    def __init__(self, noise: float, seed: int = 0):
        super().__init__(dimension=64)
        self.noise, self.seed = noise, seed

    def vector(self, sentence: str) -> np.ndarray:
        rng = np.random.default_rng([self.seed, *sentence.encode()])
        return super().vector(sentence) + self.noise * rng.standard_normal(self.dimension)


def pairs(count: int = 300, name: str = "made") -> PairSet:
    """Pairs whose grade is the share of words that they have in common."""
    rng = np.random.default_rng(1)
    words = [f"w{number}" for number in range(40)]
    first, second, gold = [], [], []
    for _ in range(count):
        one = rng.choice(words, 8, replace=False)
        kept = int(rng.integers(0, 9))
        other = rng.choice([word for word in words if word not in one], 8 - kept, replace=False)
        first.append(" ".join(one))
        second.append(" ".join(rng.permutation([*one[:kept], *other])))
        gold.append(5 * kept / 8)
    return PairSet(name, first, second, np.array(gold))


def report(encoder: BagOfWords, sets: dict[str, list[PairSet]], name: str) -> Report:
    return evaluate(encoder, sets, geometry_on=None, name=name)


def test_a_worse_model_is_called_worse_and_noise_is_not() -> None:
    sets = {"made": [pairs()]}
    good = report(Noisy(1.0), sets, "good")
    like = report(Noisy(1.0, seed=1), sets, "like")
    bad = report(Noisy(4.0), sets, "bad")
    found = compare_reports([good, like, bad], sets, resamples=2000)
    verdicts = {each.model: each.verdict for each in found.differences}
    assert verdicts == {"like": "no difference shown", "bad": "worse"}
    (worse,) = found.of("bad")
    assert worse.difference.high < 0
    assert worse.difference.estimate == pytest.approx(
        bad.tasks["made"].spearman - good.tasks["made"].spearman
    )
    assert worse.williams < 0.05
    assert worse.steiger < 0.05
    # Two tests, so that Holm's smaller one is doubled.
    assert worse.adjusted == pytest.approx(2 * worse.p)
    (other_way,) = compare_reports([bad, good], resamples=2000).differences
    assert other_way.verdict == "better"
    json.dumps(found.to_json(), allow_nan=False)
    table = render_comparison(found)
    for text in ("good", "bad less good", "no difference shown", "worse", "word overlap", "Holm"):
        assert text in table


def test_flips_are_the_pairs_that_moved_most() -> None:
    sets = {"made": [pairs(40)]}
    good, bad = report(Noisy(0.2), sets, "good"), report(Noisy(6.0), sets, "bad")
    flips = compare_reports([bad, good], sets, resamples=100, flips=3).flips["good"]
    gains = [flip.gain for flip in flips]
    assert gains == sorted(gains, reverse=True)
    assert 3 <= len(flips) <= 6
    best = flips[0]
    gold, first, other = best.places
    assert abs(first - gold) - abs(other - gold) == pytest.approx(best.gain)
    at = sets["made"][0].sentences1.index(best.sentence1)
    assert sets["made"][0].gold[at] == best.gold


def test_slices_split_by_what_the_pairs_are() -> None:
    one = ["A cat is not here.", "He has 2 dogs", "man bites dog", "a b c d e f g h i", "dog"]
    two = ["a cat is here", "he has 3 dogs", "dog bites man", "a b", "dog"]
    found = slices(PairSet("x", one, two, np.zeros(5)))
    wanted = {
        "length differs by 0-1 words": [1, 1, 1, 0, 1],
        "length differs by 2-4 words": [0, 0, 0, 0, 0],
        "length differs by 5 words or more": [0, 0, 0, 1, 0],
        "word overlap below 0.25": [0, 0, 0, 1, 0],
        "word overlap 0.25 to 0.5": [0, 0, 0, 0, 0],
        "word overlap 0.5 or more": [1, 1, 1, 0, 1],
        "one sentence is negated": [1, 0, 0, 0, 0],
        "different numbers": [0, 1, 0, 0, 0],
        "same words, other order": [0, 0, 1, 0, 0],
    }
    assert {name: inside.astype(int).tolist() for name, inside in found.items()} == wanted


def test_the_average_has_an_interval_and_a_verdict(senteval: Path, encoder: BagOfWords) -> None:
    sets = load_tasks("sts", senteval)
    one = evaluate(encoder, sets, geometry_on=None, name="one", resamples=200)
    assert one.intervals is not None
    interval = one.intervals.scores[AVERAGE]
    assert interval.estimate == pytest.approx(one.average)
    assert interval.low < interval.estimate < interval.high
    document = one.to_json()
    assert document["intervals"]["scores"][AVERAGE] == [interval.low, interval.high]
    assert f"[{interval.low:.2f}, {interval.high:.2f}]" in one.table()
    assert "  95 % from" in one.table()
    again = report(BagOfWords(), sets, "one")
    found = compare_reports([one, again], resamples=400)
    assert found.models == ["one", "one (2)"]
    assert {each.verdict for each in found.differences} == {"no difference shown"}
    assert [each.task for each in found.differences] == [*sets, AVERAGE]
    assert math.isnan(found.differences[-1].williams)


def test_resamples_too_few_for_holm_are_refused_with_the_number_that_will_do() -> None:
    sets = {name: [pairs(60, name)] for name in "abc"}
    good, bad = report(Noisy(0.2), sets, "good"), report(Noisy(9.0), sets, "bad")
    with pytest.raises(ConfigError, match="Holm's correction of 3 tests; give 120 or more"):
        compare_reports([good, bad], resamples=119)
    found = compare_reports([good, bad], resamples=120)
    assert {each.verdict for each in found.differences} == {"worse"}


def test_reports_of_other_pairs_are_refused() -> None:
    one = report(Noisy(1.0), {"made": [pairs(50)]}, "one")
    two = report(Noisy(1.0), {"made": [pairs(51)]}, "two")
    with pytest.raises(DataError, match="one and two were not scored on the same pairs of made"):
        compare_reports([one, two])
    with pytest.raises(ConfigError, match="needs two or more reports"):
        compare_reports([one])


def test_systems_over_seeds() -> None:
    sets = {"made": [pairs(200)]}
    systems = [
        [report(Noisy(noise, seed), sets, f"{noise}-{seed}") for seed in range(3)]
        for noise in (1.0, 4.0)
    ]
    found = compare_systems(systems)
    (difference,) = found.differences
    assert difference.verdict == "worse"
    scores = [[each.tasks["made"].spearman for each in system] for system in systems]
    assert found.scores["made"] == scores
    assert difference.paired.difference == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]))
    table = render_systems(found)
    assert "4.0-0 (+2) less 1.0-0 (+2)" in table
    assert f"{np.mean(scores[0]):.2f} ± {np.std(scores[0], ddof=1):.2f}" in table
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(DataError, match="systems with 3, 2 seeds cannot be paired"):
        compare_systems([systems[0], systems[1][:2]])
