"""The figures of the report pages."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_kit.evaluation.report import curves
from simcse_kit.evaluation.report.figures import bin_by_gold, gold_edges
from simcse_kit.evaluation.report.numbers import difference, duration, fixed, number
from simcse_kit.evaluation.report.page import write_training_report
from simcse_kit.evaluation.report.panels import histogram_task
from tests.evaluation.report_inputs import HISTORY, Page, geometry, report


@pytest.mark.parametrize(
    ("scale", "edges"),
    [
        ((0.0, 5.0), [0, 1, 2, 3, 4, 5]),
        ((1.0, 5.0), [1, 2, 3, 4, 5]),
        ((0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((0.0, 10.0), [0, 2, 4, 6, 8, 10]),
    ],
)
def test_gold_edges(scale: tuple[float, float], edges: list[float]) -> None:
    assert gold_edges(scale) == pytest.approx(edges)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 25)), max_size=40))
def test_every_pair_falls_into_the_bin_of_its_score(rows: list[tuple[float, int]]) -> None:
    cosines = np.array([cosine for cosine, _ in rows])
    gold = np.array([score / 5 for _, score in rows])
    ridges = bin_by_gold(cosines, gold, (0.0, 5.0))
    for index, part in enumerate(ridges.cosines):
        naive = [c for c, s in rows if s // 5 == index or (s == 25 and index == 4)]
        assert part.tolist() == naive
    assert ridges.left_out == 0


def test_pairs_without_cosine_or_off_the_scale_are_counted() -> None:
    ridges = bin_by_gold(
        np.array([0.5, math.nan, 0.25, 1.0000001]), np.array([0.0, 1.0, 6.0, 5.0]), (0.0, 5.0)
    )
    assert ridges.left_out == 2
    assert ridges.cosines[4].tolist() == [1.0]
    assert ridges.labels == ("0\u20131", "1\u20132", "2\u20133", "3\u20134", "4\u20135")
    assert ridges.median(2) is None


def test_the_histogram_shows_the_task_of_the_geometry() -> None:
    full = report("m", 50)
    assert histogram_task([full]) == "STSB"
    for source, expected in (("STS-B test", "STSB"), ("sts12", "STS12"), ("dev.tsv", "STS12")):
        shape = geometry()
        object.__setattr__(shape, "source", source)
        assert histogram_task([report("m", 50, geometry=shape)]) == expected
    assert histogram_task([report("m", 50, geometry=None)]) == "STS12"
    only = report("n", 50, geometry=None, tasks={"SICKR": full.tasks["SICKR"]})
    assert histogram_task([full, only]) == "SICKR"


def test_numbers() -> None:
    assert number(0.0, reason="").text == "0.00"
    assert number(-0.001, reason="").text == "0.00"
    assert number(-1.5, reason="").text == "\u22121.50"
    assert number(1234.5, 1, reason="").text == "1,234.5"
    assert number(np.float32(2.5), reason="").text == "2.50"
    for missing in (None, math.nan, math.inf):
        assert (number(missing, reason="x").text, number(missing, reason="x").reason) == (
            "\u2013",
            "x",
        )
    assert (difference(1, 2).text, difference(1, 2).trend) == ("+1.00", "better")
    assert (difference(1, 2, better="lower").text, difference(1, 2, better="lower").trend) == (
        "+1.00",
        "worse",
    )
    assert (difference(1, 1.001).text, difference(1, 1.001).trend) == ("0.00", "")
    assert [duration(s).text for s in (0.04, 59.96, 185, 7620)] == [
        "0.0 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]


@given(st.floats(-1e6, 1e6))
def test_a_number_reads_back(value: float) -> None:
    text = fixed(value, plus="+")
    read = float(text.replace("\u2212", "-").replace(",", ""))
    assert read == pytest.approx(value, abs=0.00501)
    assert (text[0] == "+") == (read > 0)
    assert (text[0] == "\u2212") == (read < 0)


def test_series_sorts_and_a_repeated_step_keeps_its_last_value() -> None:
    rows = [
        {"step": 2, "loss": 5.0},
        {"step": 1, "loss": math.nan},
        {"step": 3, "loss": 1.0},
        {"step": 2, "loss": 4.0},
        {"step": 4},
    ]
    steps, values = curves.series(rows, "loss")
    assert steps.tolist() == [2, 3]
    assert values.tolist() == [4, 1]
    assert curves.series(rows, "absent")[0].size == 0


def test_best_is_the_earliest_of_the_highest() -> None:
    rows = [{"step": s, "dev_spearman": v} for s, v in ((1, 3.0), (2, 7.0), (3, 7.0), (4, 5.0))]
    assert curves.best_dev(rows) == (2, 7.0)
    assert curves.best_dev([{"step": 1, "dev_spearman": math.nan}]) is None


def test_path_needs_both_values_at_a_step() -> None:
    rows = [
        {"step": 1, "dev_alignment": 0.1, "dev_uniformity": -1.0},
        {"step": 2, "dev_alignment": 0.2},
        {"step": 3, "dev_alignment": 0.3, "dev_uniformity": -3.0},
    ]
    assert curves.hypersphere_path(rows) == [(-1.0, 0.1), (-3.0, 0.3)]


def test_a_long_run_stays_a_small_page() -> None:
    rng = np.random.default_rng(0)
    rows = [{"step": s, "loss": float(rng.random())} for s in range(1, 20_001)]
    (panel,) = curves.training_curves(rows)
    assert len(panel.figure) < 40_000
    assert "mean of 50 logged values" in panel.caption


def test_training_page(tmp_path: Path) -> None:
    path = write_training_report(HISTORY, tmp_path, title="A run", summary={"Seed": "42"})
    assert path == tmp_path / "training.html"
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.html"]
    first = path.read_bytes()
    read = Page(first.decode())
    assert "Best score on the dev set 80.00 at step 320" in read.text
    assert "Seed 42" in read.text
    for title in ("Loss", "Dev score", "Alignment", "Uniformity", "Learning rate", "Speed"):
        assert title in read.text
    write_training_report(HISTORY, tmp_path, title="A run", summary={"Seed": "42"})
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 1.0}],
        [{"step": 0, "loss": math.nan, "dev_spearman": math.inf}],
    ],
)
def test_training_page_without_values_says_so(
    tmp_path: Path, history: list[dict[str, float]]
) -> None:
    read = Page(
        write_training_report(history, tmp_path, title="T", summary={}).read_text(encoding="utf-8")
    )
    assert "nothing to draw" in read.text


@pytest.mark.parametrize("step", [0, 7])
def test_training_page_with_a_single_row(tmp_path: Path, step: int) -> None:
    row = dict.fromkeys(HISTORY[0], 1.0) | {"dev_spearman": 0.81, "dev_loss": 2.0, "step": step}
    read = Page(
        write_training_report([row], tmp_path, title="T", summary={}).read_text(encoding="utf-8")
    )
    assert f"0.8100 at step {step}" in read.text
