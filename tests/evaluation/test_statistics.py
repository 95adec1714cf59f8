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
from simcse_kit.evaluation.statistics.bootstrap import Bootstrap, Sample, check_settings
from simcse_kit.evaluation.statistics.distribution import Distribution, least_resamples
from simcse_kit.evaluation.statistics.jackknife import leave_one_out
from simcse_kit.evaluation.statistics.significance import holm, paired_seeds, steiger, williams
from simcse_kit.evaluation.statistics.weighted_spearman import WeightedRanks


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
    ranks = WeightedRanks(gold, np.stack([coarse, fine]))
    found = ranks.correlations(weights[:, None])
    # Several versions are computed together, a single one alone.
    np.testing.assert_allclose(ranks.correlations(np.stack([weights] * 2, 1))[1:], found)
    times = weights.astype(int)
    for model, values in enumerate((coarse, fine)):
        one, two = np.repeat(gold, times), np.repeat(values, times)
        if len(one) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
            assert not np.isfinite(found[0, model])
        else:
            wanted = 100 * stats.spearmanr(one, two).statistic
            assert found[0, model] == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40)),
        min_size=3,
        max_size=40,
    )
)
def test_leave_one_out_is_brute_force(rows: list[tuple[int, int, int]]) -> None:
    gold, coarse, fine = np.array(rows, dtype=np.float64).T
    found = WeightedRanks(gold, np.stack([coarse, fine])).leave_one_out()
    for model, values in enumerate((coarse, fine)):
        for at in range(len(gold)):
            one, two = np.delete(gold, at), np.delete(values, at)
            if np.ptp(one) == 0 or np.ptp(two) == 0:
                assert not np.isfinite(found[at, model])
            else:
                wanted = 100 * stats.spearmanr(one, two).statistic
                assert found[at, model] == pytest.approx(wanted, abs=1e-9)


def test_leave_one_out_of_many_pairs_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 51, 100_000) / 10
    predicted = gold + rng.standard_normal((1, 100_000))
    start = time.process_time()
    found = leave_one_out(gold, predicted)
    assert time.process_time() - start < 6
    for at in (0, 99_999):
        wanted = stats.spearmanr(np.delete(gold, at), np.delete(predicted[0], at)).statistic
        assert found[at, 0] == pytest.approx(100 * wanted, abs=1e-9)


draws_and_alpha = st.tuples(
    st.lists(st.floats(-3, 3).map(lambda value: round(value, 1)), min_size=100, max_size=160),
    st.floats(-3, 3),
    st.floats(-1 / 6, 1 / 6),
    st.floats(0.021, 0.999),
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(draws_and_alpha)
def test_p_is_below_alpha_exactly_where_the_interval_excludes_0(
    case: tuple[list[float], float, float, float],
) -> None:
    draws, estimate, acceleration, alpha = case
    for found in (
        Distribution(np.array(draws)),
        Distribution.corrected(np.array(draws), estimate, acceleration),
    ):
        low, high = found.interval(1 - alpha)
        assert low <= high
        assert (found.p_value() < alpha) == (low > 0 or high < 0)


def test_p_and_interval_agree_in_null_comparisons_and_on_averages() -> None:
    rng = np.random.default_rng(11)
    for trial in range(40):
        samples = {name: normal_pairs(rng, 50, 0.6, models=2) for name in "ab"}
        bootstrap = Bootstrap(samples, resamples=200, seed=trial, threads=1)
        for tasks in (["a"], ["b"], ["a", "b"]):
            p = bootstrap.difference(tasks, 1)[1]
            for alpha in np.clip([p - 1e-6, p + 1e-6, 0.05], 0.0101, 0.999):
                interval, _ = bootstrap.difference(tasks, 1, level=1 - alpha)
                assert (p < alpha) == (interval.low > 0 or interval.high < 0)


def test_p_is_bounded_by_the_number_of_resamples() -> None:
    assert Distribution(np.linspace(1, 2, 199)).p_value() == pytest.approx(2 / 200)
    assert Distribution(np.linspace(-2, -1, 199)).p_value() == pytest.approx(2 / 200)
    assert Distribution(np.zeros(199)).p_value() == 1.0
    # Twice the share beyond 0.
    draws = np.arange(-49, 151) / 10
    assert Distribution(draws).p_value() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("level", "tests"), [(0.95, 1), (0.95, 3), (0.95, 7), (0.99, 14)])
def test_the_least_number_of_resamples_is_the_least(level: float, tests: int) -> None:
    least = least_resamples(level, tests)
    one_sided = [Distribution(np.arange(1.0, count + 1)).p_value() for count in (least, least - 1)]
    smallest = [min(holm(dict.fromkeys(map(str, range(tests)), p)).values()) for p in one_sided]
    assert smallest[0] < round(1 - level, 9) <= smallest[1] + 1e-12
    if least > 100:
        with pytest.raises(ConfigError, match=f"give {least} or more"):
            check_settings(least - 1, level, tests)
    check_settings(max(100, least), level, tests)


def test_the_interval_is_that_of_scipy() -> None:
    sample = normal_pairs(np.random.default_rng(1), 120, 0.7)
    ours = Bootstrap({"a": sample}, resamples=20_000).interval(["a"])
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


@pytest.mark.long
@pytest.mark.parametrize(("pairs", "rho"), [(150, 0.6), (60, 0.85)])
def test_intervals_cover_as_often_as_they_say(pairs: int, rho: float) -> None:
    rng = np.random.default_rng(3)
    # Of a bivariate normal population (Pearson 1907).
    true = 100 * 6 / math.pi * math.asin(rho / 2)
    covered = 0
    for trial in range(600):
        sample = normal_pairs(rng, pairs, rho)
        found = Bootstrap({"a": sample}, resamples=400, seed=trial, threads=1)
        interval = found.interval(["a"])
        covered += interval.low <= true <= interval.high
    assert 0.93 <= covered / 600 <= 0.97


@pytest.mark.long
@pytest.mark.parametrize(
    ("trials", "least", "most"),
    [(400, 0.03, 0.07), pytest.param(2000, 0.04, 0.06, marks=pytest.mark.slow)],
)
def test_the_paired_test_rejects_as_often_as_it_says(
    trials: int, least: float, most: float
) -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for trial in range(trials):
        bootstrap = Bootstrap(
            {"a": normal_pairs(rng, 120, 0.6, models=2)}, resamples=400, seed=trial, threads=1
        )
        interval, p = bootstrap.difference(["a"], 1)
        assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
        rejected += p < 0.05
    assert least <= rejected / trials <= most


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
        return [bootstrap.interval(list(samples)), bootstrap.difference(list(samples), 1)]

    found = intervals({"a": one, "b": two}, threads=1)
    assert intervals({"a": one, "b": two}, threads=3) == found
    assert intervals({"a": one, "b": two}, seed=1) != found
    bent = Sample(np.exp(one.gold), one.predicted**3, one.strata)
    assert intervals({"a": bent, "b": two}) == found


def test_a_model_does_not_differ_from_itself() -> None:
    sample = normal_pairs(np.random.default_rng(6), 60, 0.5)
    twice = Sample(sample.gold, np.repeat(sample.predicted, 2, axis=0), sample.strata)
    bootstrap = Bootstrap({"a": twice}, resamples=200)
    interval, p = bootstrap.difference(["a"], 1)
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert p == 1.0


def test_constant_predictions_are_undefined() -> None:
    sample = Sample(np.arange(9.0), np.zeros((1, 9)), (9,))
    bootstrap = Bootstrap({"a": sample}, resamples=100)
    interval = bootstrap.interval(["a"])
    assert math.isnan(interval.estimate)
    assert math.isnan(interval.low)
    assert math.isnan(bootstrap.difference(["a"], 0)[1])


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
    bootstrap.interval(list(samples))
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
    with pytest.raises(DataError, match="3 pairs are too few: the test needs at least 4"):
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
    # Without a spread there is neither an interval nor a p-value, which could contradict it.
    same = paired_seeds([2.0, 3.0], [1.0, 2.0])
    assert math.isnan(same.p)
    assert math.isnan(same.low)
    assert math.isnan(same.high)
    with pytest.raises(DataError, match="3 and 4 seeds cannot be paired"):
        paired_seeds(one[:3], two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros((1, 4))}, "give .models, 5."),
        ({"predicted": np.zeros(5)}, "give .models, 5."),
        ({"strata": (2, 2)}, "do not add up to 5 pairs"),
        ({"predicted": np.full((1, 5), np.nan)}, "contain NaN or infinity"),
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
        Bootstrap({"a": sample}, resamples=100).interval(["a"], level=95)
    with pytest.raises(DataError, match="a correlation needs at least 3 graded pairs"):
        Sample(np.arange(2.0), np.ones((1, 2)), (2,))
