"""Reports and comparisons as notebooks show them."""

from __future__ import annotations

from dataclasses import replace

from simcse_kit.evaluation.evaluate import compare, evaluate
from simcse_kit.evaluation.records import TRANSFER_TASKS, TaskScore
from tests.evaluation.report_inputs import report

PAIRS = [(f"a {a}", f"one {b}", 5.0 * (a == b)) for a in "abcdef" for b in "abcdef"]


class ByLength:
    """An encoder without weights."""

    def __init__(self, shift: float):
        self.shift = shift

    def encode(self, sentences: list[str]) -> list[list[float]]:
        return [[1.0, ord(text[-1]) + self.shift * len(text)] for text in sentences]


def test_a_report_is_a_table_with_a_row_for_every_score() -> None:
    transfer = {
        name: TaskScore(name, "transfer", "accuracy", {"accuracy": 61.5}, {"all": 1234}, "by x")
        for name in TRANSFER_TASKS
    }
    shown = replace(report("<b>x", 60.0), beyond_sts=transfer)._repr_html_()
    assert shown.count("<tr>") == 1 + 7 + 1 + 7 + 1
    assert "<b>x" not in shown
    assert "&lt;b&gt;x, pooling cls" in shown
    assert "61.50" in shown
    assert "1,234 all" in shown
    assert "Avg." in shown
    assert "interval" not in shown


def test_a_report_with_intervals_shows_them() -> None:
    found = evaluate(ByLength(0.0), PAIRS, geometry_on=None, resamples=100, name="mine")
    interval = found.intervals.scores["pairs"]
    shown = found._repr_html_()
    assert f"[{interval.low:.2f}, {interval.high:.2f}]" in shown
    assert "95 % interval" in shown


def test_a_comparison_shows_scores_differences_and_verdicts() -> None:
    found = compare({"<i>": ByLength(0.0), "other": ByLength(3.0)}, PAIRS, resamples=200)
    shown = found._repr_html_()
    [difference] = found.differences
    assert f"{difference.difference.estimate:+.2f} [" in shown
    assert difference.verdict in shown
    assert "<i>" not in shown
    assert "difference from &lt;i&gt;" in shown
    assert shown.count("<table>") == 2
