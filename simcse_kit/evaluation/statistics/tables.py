"""Comparisons as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simcse_kit.evaluation.statistics.bootstrap import Interval
from simcse_kit.evaluation.statistics.comparison import Comparison, Difference
from simcse_kit.evaluation.statistics.error_analysis import Flip
from simcse_kit.evaluation.statistics.seeds import Systems
from simcse_kit.utils.printable import one_line

__all__ = ["render_comparison", "render_systems"]

_TEXT = 70


def render_comparison(found: Comparison) -> str:
    """Scores with intervals, differences with tests, slices, and the pairs that flipped."""
    share = f"{100 * found.level:g} %"
    lines = [f"Spearman x100 with {share} intervals (BCa bootstrap, {found.resamples:,} resamples)"]
    lines += _table(
        ["task", *found.models],
        [[task, *map(_interval, each)] for task, each in found.scores.items()],
    )
    for model in found.models[1:]:
        lines += ["", one_line(f"{model} less {found.models[0]}, on the same pairs")]
        lines += _table(
            ["task", "difference", "p", "Holm p", "Williams p", "Steiger p", "verdict"],
            [_difference(each) for each in found.of(model)],
        )
        if found.slices.get(model):
            lines += ["", "by kind of pair (mean over the tasks that have 30 of them or more)"]
            lines += _table(
                ["kind", "pairs", "tasks", found.models[0], model, "difference"],
                [
                    [
                        each.name,
                        str(each.pairs),
                        str(each.tasks),
                        *map(_score, each.scores),
                        _interval(each.difference, sign=True),
                    ]
                    for each in found.slices[model]
                ],
            )
        for title, gain in ((f"placed better by {model}", 1), ("placed worse", -1)):
            moved = [flip for flip in found.flips.get(model, []) if flip.gain * gain > 0]
            if moved:
                lines += [
                    "",
                    f"{one_line(title)} (place among the pairs of the task, 0 least alike, 1 most)",
                ]
                lines += [_flip(flip) for flip in (moved if gain > 0 else moved[::-1])]
    lines += [
        "",
        "Differences: percentile intervals of the paired bootstrap; p is the smallest alpha whose",
        "interval at 1 - alpha excludes 0. The verdict compares the Holm-adjusted p with "
        f"{1 - found.level:g}; the",
        "adjustment is over tasks and models, and for the mean over models.",
    ]
    return "\n".join(lines)


def render_systems(found: Systems) -> str:
    """Means and spreads over seeds, and paired differences."""
    names = [f"{system[0]} (+{len(system) - 1})" for system in found.systems]
    lines = [f"Spearman x100, mean ± standard deviation over {len(found.systems[0])} seeds"]
    lines += _table(
        ["task", *names],
        [
            [
                task,
                *(
                    f"{found.mean(task, n):.2f} ± {found.deviation(task, n):.2f}"
                    for n in range(len(names))
                ),
            ]
            for task in found.scores
        ],
    )
    for number in range(1, len(names)):
        lines += ["", one_line(f"{names[number]} less {names[0]}, seed by seed")]
        lines += _table(
            ["task", "difference", "p", "Holm p", "verdict"],
            [
                [
                    each.task,
                    _interval(
                        Interval(each.paired.difference, each.paired.low, each.paired.high),
                        sign=True,
                    ),
                    _p(each.paired.p),
                    _p(each.adjusted),
                    each.verdict,
                ]
                for each in found.differences
                if each.system == number
            ],
        )
    lines += [
        "",
        f"Paired t-test over seeds; the verdict is at {1 - found.level:g}, Holm-adjusted.",
    ]
    return "\n".join(lines)


def _difference(each: Difference) -> list[str]:
    return [
        each.task,
        _interval(each.difference, sign=True),
        *map(_p, (each.p, each.adjusted, each.williams, each.steiger)),
        each.verdict,
    ]


def _flip(flip: Flip) -> str:
    gold, one, two = flip.places
    texts = " | ".join(
        text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
        for text in (flip.sentence1, flip.sentence2)
    )
    said = f"{flip.task}: gold {gold:.2f}, first {one:.2f}, this {two:.2f}: {texts}"
    return f"  {one_line(said)}"


def _interval(interval: Interval, *, sign: bool = False) -> str:
    if math.isnan(interval.estimate):
        return "undefined"
    form = "+.2f" if sign else ".2f"
    if math.isnan(interval.low):
        return f"{interval.estimate:{form}} [undefined]"
    return f"{interval.estimate:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _score(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right."""
    heads, rows = [one_line(head) for head in heads], [[one_line(c) for c in row] for row in rows]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    ]
