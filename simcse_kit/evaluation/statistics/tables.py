"""Comparisons as text tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from simcse_kit.evaluation.statistics.bootstrap import Interval
from simcse_kit.evaluation.statistics.cells import interval_cell, p_cell
from simcse_kit.evaluation.statistics.comparison import Comparison
from simcse_kit.evaluation.statistics.error_analysis import Flip
from simcse_kit.evaluation.statistics.seeds import Systems
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import Table, render_text

__all__ = ["render_comparison", "render_systems"]

# Displayed characters of a sentence.
_SENTENCE = 70


def render_comparison(found: Comparison) -> str:
    """Show scores with intervals, differences with tests, slices, and the pairs that moved most."""
    first = found.models[0]
    share = f"{100 * found.level:g} %"
    scores = ([task, *map(interval_cell, each)] for task, each in found.scores.items())
    lines = [
        f"Spearman x100 with {share} intervals (BCa bootstrap, {found.resamples:,} resamples)",
        _table(["task", *found.models], scores),
    ]
    for model in found.models[1:]:
        tests = (
            [
                each.task,
                interval_cell(each.difference, sign=True),
                *map(p_cell, (each.p, each.adjusted, each.williams, each.steiger)),
                each.verdict,
            ]
            for each in found.of(model)
        )
        heads = ["task", "difference", "p", "Holm p", "Williams p", "Steiger p", "verdict"]
        lines += ["", one_line(f"{model} less {first}, on the same pairs"), _table(heads, tests)]
        if found.slices.get(model):
            slices = (
                [
                    each.name,
                    str(each.pairs),
                    str(each.tasks),
                    *map(_score, each.scores),
                    interval_cell(each.difference, sign=True),
                ]
                for each in found.slices[model]
            )
            lines += [
                "",
                "by kind of pair (mean over the tasks that have 30 of them or more)",
                _table(["kind", "pairs", "tasks", first, model, "difference"], slices),
            ]
        flips = found.flips.get(model, [])
        better = [flip for flip in flips if flip.gain > 0]
        worse = [flip for flip in reversed(flips) if flip.gain < 0]
        for title, moved in ((f"placed better by {model}", better), ("placed worse", worse)):
            if moved:
                scale = "(place among the pairs of the task, 0 least similar, 1 most)"
                lines += ["", f"{one_line(title)} {scale}", *map(_flip, moved)]
    lines += [
        "",
        "Differences: percentile intervals of the paired bootstrap; p is the smallest alpha whose",
        "interval at 1 - alpha excludes 0. The verdict compares the Holm-adjusted p with "
        f"{1 - found.level:g}; the",
        "adjustment is over tasks and models, and for the mean over models.",
    ]
    return "\n".join(lines)


def render_systems(found: Systems) -> str:
    """Show means and standard deviations over seeds, and paired differences."""
    names = [f"{system[0]} (+{len(system) - 1})" for system in found.systems]
    numbers = range(len(names))
    means = (
        [task, *(f"{found.mean(task, n):.2f} ± {found.deviation(task, n):.2f}" for n in numbers)]
        for task in found.scores
    )
    lines = [
        f"Spearman x100, mean ± standard deviation over {len(found.systems[0])} seeds",
        _table(["task", *names], means),
    ]
    for number in numbers[1:]:
        tests = (
            [
                each.task,
                interval_cell(
                    Interval(each.paired.difference, each.paired.low, each.paired.high), sign=True
                ),
                p_cell(each.paired.p),
                p_cell(each.adjusted),
                each.verdict,
            ]
            for each in found.differences
            if each.system == number
        )
        lines += [
            "",
            one_line(f"{names[number]} less {names[0]}, seed by seed"),
            _table(["task", "difference", "p", "Holm p", "verdict"], tests),
        ]
    lines += [
        "",
        f"Paired t-test over seeds; the verdict is at {1 - found.level:g}, Holm-adjusted.",
    ]
    return "\n".join(lines)


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    return render_text(Table.of_text(heads, rows))


def _flip(flip: Flip) -> str:
    gold, first, this = flip.places
    texts = " | ".join(
        sentence if len(sentence) <= _SENTENCE else sentence[: _SENTENCE - 1] + "…"
        for sentence in (flip.sentence1, flip.sentence2)
    )
    line = f"{flip.task}: gold {gold:.2f}, first {first:.2f}, this {this:.2f}: {texts}"
    return f"  {one_line(line)}"


def _score(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"
