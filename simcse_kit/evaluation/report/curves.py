"""Training curves: one small figure for each quantity of a training history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simcse_kit.errors import DataError
from simcse_kit.evaluation.report import svg
from simcse_kit.evaluation.report.numbers import fixed, is_number

__all__ = ["Panel", "best_dev", "hypersphere_path", "readable", "series", "training_curves"]

History = Sequence[Mapping[str, float]]

_MOST_POINTS = 400
# The geometry probe measures more often than the evaluations.
_ALIGNMENT = ("trace_alignment", "dev_alignment", "alignment")
_UNIFORMITY = ("trace_uniformity", "dev_uniformity", "uniformity")


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure with its heading and caption."""

    title: str
    figure: Markup
    caption: str


def series(history: History, *keys: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and finite values of the first of ``keys`` that has any, sorted by step.

    If a resumed run logged a step twice, the later value counts.

    Returns:
        Two float64 arrays of equal length; empty if no row has a finite value.

    Raises:
        DataError: A row has no step.

    Examples:
        >>> steps, values = series([{"step": 2, "loss": 0.5}, {"step": 1, "loss": 0.75}], "loss")
        >>> steps.tolist(), values.tolist()
        ([1.0, 2.0], [0.75, 0.5])
    """
    for index, row in enumerate(history, start=1):
        if not is_number(row.get("step")):
            raise DataError(
                f"training history, row {index}: 'step' is {row.get('step')!r}, but must be a "
                f"number; the keys of the row are {', '.join(map(str, row)) or 'none'}"
            )
    for key in keys:
        found = {float(row["step"]): float(row[key]) for row in history if is_number(row.get(key))}
        if found:
            steps = sorted(found)
            return np.array(steps), np.array([found[step] for step in steps])
    return np.empty(0), np.empty(0)


def hypersphere_path(history: History) -> list[tuple[float, float]]:
    """Return ``(uniformity, alignment)`` at every step that has both, in order."""
    steps, alignment = series(history, *_ALIGNMENT)
    others, uniformity = series(history, *_UNIFORMITY)
    by_step = dict(zip(others, uniformity, strict=True))
    return [
        (float(by_step[step]), float(value))
        for step, value in zip(steps, alignment, strict=True)
        if step in by_step
    ]


def best_dev(history: History) -> tuple[float, float] | None:
    """Return step and value of the highest dev score (the earliest of equals), or None."""
    steps, values = series(history, "dev_spearman")
    if not len(values):
        return None
    index = int(values.argmax())
    return float(steps[index]), float(values[index])


def training_curves(history: History, *, key: str = "curve") -> list[Panel]:
    """Draw every quantity that the history has values for, in a fixed order.

    Loss (with the level of ln(batch) if the rows give it), dev score (best step marked),
    alignment, uniformity, effective rank, spread, learning rate, speed.

    Raises:
        DataError: A row has no step.
    """
    last = float(series(history, "step")[0].max(initial=0.0))
    panels = [_loss(history, f"{key}-loss", last), _dev(history, f"{key}-dev", last)]
    fixed_sentences = "Fixed sentences, lower is better: {span}."
    for name, keys, caption in (
        ("Alignment", _ALIGNMENT, fixed_sentences),
        ("Uniformity", _UNIFORMITY, fixed_sentences),
        ("Effective rank", ("trace_effective_rank",), "Same sentences; low after a collapse."),
        ("Spread", ("trace_spread",), "Per-dimension standard deviation times √d; 1 at most."),
        ("Learning rate", ("learning_rate",), "Peak {peak:.3g}."),
        ("Speed", ("sentences_per_second",), "Sentences per second; median {median:,.0f}."),
    ):
        steps, values = series(history, *keys)
        if len(values):
            text = caption.format(span=_span(values), peak=values.max(), median=np.median(values))
            panels.append(_line(steps, values, name, f"{key}-{keys[-1]}", last, text))
    return [panel for panel in panels if panel is not None]


def readable(value: float) -> str:
    """Format with two decimals for values of 10 and more, otherwise with four."""
    return fixed(value, 2 if abs(value) >= 10 else 4)


def _span(values: np.ndarray) -> str:
    return f"{readable(values[0])} at the start, {readable(values[-1])} at the end"


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Average blocks of points, so that a long run gives a small page; third: block length."""
    block = -(-len(values) // _MOST_POINTS)
    if block <= 1:
        return steps, values, 1
    starts = np.arange(0, len(values), block)
    sizes = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes, block


def _frame(figure: Figure, last: float) -> Axes:
    pane = svg.axes(figure, left=52, right=14, bottom=40, top=16)
    pane.set(xlabel="step", xlim=(0, last or 1))
    pane.locator_params(axis="x", nbins=6)
    pane.locator_params(axis="y", nbins=5)
    pane.grid(axis="x", visible=False)
    return pane


def _panel(title: str, draw: Callable[[Figure], None], key: str, caption: str, label: str) -> Panel:
    return Panel(title, svg.render(draw, key=key, label=label, size=(380, 200)), caption)


def _line(
    steps: np.ndarray, values: np.ndarray, name: str, key: str, last: float, caption: str
) -> Panel:
    """Draw one curve; quantities that cannot be negative get an axis from 0."""
    zero = name not in ("Alignment", "Uniformity")

    def draw(figure: Figure) -> None:
        pane = _frame(figure, last)
        xs, ys, _ = _thin(steps, values)
        color = svg.SERIES[2 if zero else 1]
        pane.plot(xs, ys, color=color, marker="o" if len(xs) < 3 else "", markersize=4)
        if zero:
            pane.set_ylim(bottom=min(0.0, float(ys.min())))

    return _panel(name, draw, key, caption, f"{name} against training step: {_span(values)}.")


def _loss(history: History, key: str, last: float) -> Panel | None:
    steps, values = series(history, "loss")
    dev_steps, dev_values = series(history, "dev_loss")
    level_steps, levels = series(history, "ln_batch")
    if not len(values) and not len(dev_values):
        return None
    xs, ys, block = _thin(steps, values)

    def draw(figure: Figure) -> None:
        pane = _frame(figure, last)
        if len(levels):
            many = len(levels) > 1
            pane.plot(
                level_steps if many else pane.get_xlim(),
                levels if many else levels.repeat(2),
                color=svg.MUTED,
                linestyle=(0, (4, 3)),
                linewidth=1.3,
            )
            pane.annotate(
                "ln(batch)",
                (0.99, levels[-1]),
                xycoords=("axes fraction", "data"),
                xytext=(0, -11),
                textcoords="offset points",
                ha="right",
                **svg.SMALL,
            )
        if len(ys):
            pane.plot(xs, ys, color=svg.SERIES[1], marker="o" if len(xs) < 3 else "", markersize=4)
        if len(dev_values):
            pane.plot(dev_steps, dev_values, color=svg.SERIES[0], linestyle=(0, (1, 1.2)))
        shown = [*ys, *dev_values, *levels]
        if min(shown) > 0 and max(shown) > 50 * min(shown):
            pane.set_yscale("log", subs=[])  # otherwise the curve would lie on the axis
            pane.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            pane.set_ylim(bottom=min(0.0, *shown))

    parts = [f"Training loss: {_span(values)}." if len(values) else "No training loss was logged."]
    if block > 1:
        parts.append(f"Each point is the mean of {block} logged values.")
    if len(levels):
        parts.append(
            f"Dashed: ln(batch) = {levels[-1]:.3f}, the loss of an encoder that gives every "
            "sentence the same vector; a run whose loss stays there has learned nothing."
        )
    if len(dev_values):
        parts.append(f"Dotted: loss on the dev set, {_span(dev_values)}.")
    caption = " ".join(parts)
    return _panel("Loss", draw, key, caption, f"Loss against training step. {caption}")


def _dev(history: History, key: str, last: float) -> Panel | None:
    steps, values = series(history, "dev_spearman")
    best = best_dev(history)
    if best is None:
        return None

    def draw(figure: Figure) -> None:
        pane = _frame(figure, last)
        pane.plot(steps, values, color=svg.SERIES[1])
        pane.axvline(best[0], color=svg.MUTED, linestyle=(0, (2, 2)), linewidth=1.1)
        pane.plot(
            *best,
            marker="o",
            markersize=8,
            color=svg.SERIES[1],
            markeredgecolor=svg.PAPER,
            clip_on=False,
            zorder=4,
        )
        late = best[0] > (steps[0] + steps[-1]) / 2
        pane.margins(y=0.22)
        pane.annotate(
            f"best {readable(best[1])}",
            best,
            xytext=(-7 if late else 7, 7),
            textcoords="offset points",
            ha="right" if late else "left",
            color=svg.INK,
            weight="bold",
        )

    caption = (
        f"Spearman on the dev set, higher is better. Best {readable(best[1])} at step "
        f"{best[0]:,.0f}; {readable(values[-1])} at the last evaluation (step {steps[-1]:,.0f})."
    )
    return _panel("Dev score", draw, key, caption, caption)
