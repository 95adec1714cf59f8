"""Intervals and tests: against scipy, against R's published output, and by simulation."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.statistics.bootstrap import Bootstrap, Sample, two_sided_p
from simcse_kit.evaluation.statistics.significance import holm, paired_seeds, steiger, williams
from simcse_kit.evaluation.statistics.weighted import WeightedRanks


def normal_pairs(rng: np.random.Generator, pairs: int, rho: float, models: int = 1) -> Sample:
    gold = rng.standard_normal(pairs)
    noise = rng.standard_normal((models, pairs))
    return Sample(gold, rho * gold + math.sqrt(1 - rho**2) * noise, (pairs,))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 30), st.integers(0, 3)),
        min_size=4,
        max_size=40,
    )
)
def test_weighted_ranks_are_the_ranks_of_repeated_pairs(
    rows: list[tuple[int, int, int, int]],
) -> None:
    gold, coarse, fine, weights = np.array(rows, dtype=np.float64).T
    found = WeightedRanks(gold, np.stack([coarse, fine])).correlations(weights[:, None])
    times = weights.astype(int)
    for model, values in enumerate((coarse, fine)):
        one, two = np.repeat(gold, times), np.repeat(values, times)
        if len(one) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
            assert not np.isfinite(found[0, model])
        else:
            wanted = 100 * stats.spearmanr(one, two).statistic
            assert found[0, model] == pytest.approx(wanted, abs=1e-9)


def test_leave_one_out() -> None:
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 6, 90).astype(float), rng.standard_normal((2, 90))
    found = WeightedRanks(gold, predicted).leave_one_out(chunk=7)
    for model in range(2):
        wanted = [
            100 * stats.spearmanr(np.delete(gold, at), np.delete(predicted[model], at)).statistic
            for at in range(90)
        ]
        np.testing.assert_allclose(found[:, model], wanted, atol=1e-9)


def test_the_interval_is_that_of_scipy() -> None:
    sample = normal_pairs(np.random.default_rng(1), 120, 0.7)
    ours = Bootstrap({"a": sample}, resamples=20_000).interval(["a"], [1.0])
    theirs = stats.bootstrap(
        (sample.gold, sample.predicted[0]),
        lambda x, y: 100 * stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=1_500,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.estimate == pytest.approx(
        100 * stats.spearmanr(sample.gold, sample.predicted[0]).statistic
    )
    # Both are draws, of an interval 18 points wide.
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=1.2)


@pytest.mark.parametrize(("pairs", "rho"), [(150, 0.6), (60, 0.85)])
def test_intervals_cover_as_often_as_they_say(pairs: int, rho: float) -> None:
    rng = np.random.default_rng(3)
    # Of a bivariate normal population (Pearson 1907).
    true = 100 * 6 / math.pi * math.asin(rho / 2)
    covered = 0
    for trial in range(600):
        sample = normal_pairs(rng, pairs, rho)
        found = Bootstrap({"a": sample}, resamples=400, seed=trial, threads=1)
        interval = found.interval(["a"], [1.0])
        covered += interval.low <= true <= interval.high
    assert 0.93 <= covered / 600 <= 0.97


def test_the_paired_test_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for trial in range(400):
        bootstrap = Bootstrap(
            {"a": normal_pairs(rng, 120, 0.6, models=2)}, resamples=400, seed=trial, threads=1
        )
        rejected += two_sided_p(bootstrap.combined(["a"], [1.0, -1.0])) < 0.05
    assert 0.03 <= rejected / 400 <= 0.07


def test_draws_keep_the_size_of_each_subset() -> None:
    # Two subsets that are constant in themselves: the correlation is 1 in every draw that mixes
    # them in the sizes they have, and undefined in one that misses a subset.
    gold = np.array([0.0] * 3 + [1.0] * 2)
    bootstrap = Bootstrap({"a": Sample(gold, gold[None], (3, 2))}, resamples=500)
    np.testing.assert_allclose(bootstrap.draws["a"], 100.0)
    unstratified = Bootstrap({"a": Sample(gold, gold[None], (5,))}, resamples=500)
    assert np.isnan(unstratified.draws["a"]).any()


def test_seeds_threads_and_monotone_maps() -> None:
    rng = np.random.default_rng(5)
    one, two = normal_pairs(rng, 80, 0.5, models=2), normal_pairs(rng, 50, 0.8, models=2)

    def intervals(samples: dict[str, Sample], **options: Any) -> list[Any]:
        bootstrap = Bootstrap(samples, resamples=300, **options)
        return [bootstrap.interval(list(samples), weights) for weights in ([1, 0], [-1, 1])]

    found = intervals({"a": one, "b": two}, threads=1)
    assert intervals({"a": one, "b": two}, threads=3) == found
    assert intervals({"a": one, "b": two}, seed=1) != found
    bent = Sample(np.exp(one.gold), one.predicted**3, one.strata)
    assert intervals({"a": bent, "b": two}) == found


def test_a_model_does_not_differ_from_itself() -> None:
    sample = normal_pairs(np.random.default_rng(6), 60, 0.5)
    twice = Sample(sample.gold, np.repeat(sample.predicted, 2, axis=0), sample.strata)
    bootstrap = Bootstrap({"a": twice}, resamples=200)
    interval = bootstrap.interval(["a"], [1.0, -1.0])
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert two_sided_p(bootstrap.combined(["a"], [1.0, -1.0])) == 1.0


def test_constant_predictions_are_undefined() -> None:
    sample = Sample(np.arange(9.0), np.zeros((1, 9)), (9,))
    bootstrap = Bootstrap({"a": sample}, resamples=100)
    interval = bootstrap.interval(["a"], [1.0])
    assert math.isnan(interval.estimate)
    assert math.isnan(interval.low)
    assert math.isnan(two_sided_p(bootstrap.combined(["a"], [1.0])))


def test_ten_thousand_resamples_of_all_seven_tasks() -> None:
    rng = np.random.default_rng(7)
    sizes = {"12": 3108, "13": 1500, "14": 3750, "15": 3000, "16": 1186, "B": 1379, "S": 4927}
    samples = {}
    for name, pairs in sizes.items():
        drawn = normal_pairs(rng, pairs, 0.8)
        gold = np.clip(np.round(2.5 * (drawn.gold + 1)), 0, 25) / 5
        samples[name] = Sample(gold, drawn.predicted, (pairs,))
    start = time.process_time()
    bootstrap = Bootstrap(samples, resamples=1000)
    bootstrap.interval(list(samples), [1.0])
    # CPU time: a tenth of the resamples of the claim, with room for a slower machine.
    assert time.process_time() - start < 6


@pytest.mark.parametrize(
    ("correlations", "pairs", "statistic", "p"),
    [
        # Printed by R's package cocor, with correlations to four digits.
        ((0.0228, 0.3522, 0.3718), 553, -7.1345, 0.0),
        ((0.2493, 0.3395, 0.4082), 553, -2.0660, 0.0388),
        ((0.1724, 0.1795, 0.5387), 646, -0.1909, 0.8486),
    ],
)
def test_steiger(
    correlations: tuple[float, float, float], pairs: int, statistic: float, p: float
) -> None:
    z, found = steiger(*correlations, pairs)
    assert z == pytest.approx(statistic, abs=2e-3)
    assert found == pytest.approx(p, abs=1.5e-3)


def test_williams() -> None:
    # Printed by R's package cocor, with correlations to four digits.
    t, p = williams(0.1724, 0.1795, 0.5387, 646)
    assert t == pytest.approx(-0.1909, abs=2e-3)
    assert p == pytest.approx(0.8487, abs=1.5e-3)
    # Printed by R's package psych for the numbers of Steiger's case A.
    t, p = williams(0.5, 0.4, 0.1, 103)
    assert round(t, 2) == 0.89
    assert round(p, 2) == 0.37


def test_equal_models_have_no_test() -> None:
    assert math.isnan(williams(0.5, 0.5, 1.0, 50)[0])
    assert math.isnan(steiger(0.5, 0.5, 1.0, 50)[0])
    with pytest.raises(DataError, match="3 pairs: the test takes at least 4"):
        williams(0.1, 0.2, 0.3, 3)


def test_holm() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan})
    assert math.isnan(found.pop("e"))
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_paired_seeds_are_those_of_scipy() -> None:
    one, two = [70.1, 71.3, 69.8, 70.7], [69.0, 70.9, 69.9, 69.5]
    found = paired_seeds(one, two)
    theirs = stats.ttest_rel(one, two)
    assert found.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.means == pytest.approx((np.mean(one), np.mean(two)))
    with pytest.raises(DataError, match="3 and 4 seeds cannot be paired"):
        paired_seeds(one[:3], two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros((1, 4))}, "give .models, 5."),
        ({"predicted": np.zeros(5)}, "give .models, 5."),
        ({"strata": (2, 2)}, "do not add up to 5 pairs"),
        ({"predicted": np.full((1, 5), np.nan)}, "hold NaN or infinity"),
    ],
)
def test_what_is_no_sample(change: dict[str, Any], message: str) -> None:
    good = {"gold": np.arange(5.0), "predicted": np.ones((1, 5)), "strata": (5,)}
    with pytest.raises(DataError, match=message):
        Sample(**(good | change))


def test_settings_without_an_interval() -> None:
    sample = normal_pairs(np.random.default_rng(8), 10, 0.5)
    with pytest.raises(ConfigError, match="resamples is 50; give 100 or more"):
        Bootstrap({"a": sample}, resamples=50)
    with pytest.raises(ConfigError, match="level is 95; allowed: 0 < level < 1"):
        Bootstrap({"a": sample}, resamples=100).interval(["a"], [1.0], level=95)
    with pytest.raises(DataError, match="at least 3 graded pairs"):
        Sample(np.arange(2.0), np.ones((1, 2)), (2,))
