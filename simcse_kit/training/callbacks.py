"""What happens beside the optimisation: the bar, the metrics file, the state of methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from simcse_kit.methods.common.base import Method
from simcse_kit.utils.files import write_whole
from simcse_kit.utils.progress import progress_bar

__all__ = ["MethodState", "MetricsFile", "ProgressBar", "StepFlow", "Trace", "history_rows"]


def history_rows(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The trainer's log as rows of metrics.jsonl, without its summary at the end.

    Step and epoch come first, then all others by name: the log of a checkpoint is sorted, and a
    resumed run must write what an uninterrupted one does.
    """
    rows = []
    for entry in log_history:
        row = {key.removeprefix("eval_"): value for key, value in entry.items()}
        if "train_runtime" not in row:
            rows.append(dict(sorted(row.items(), key=_place)))
    return rows


def _place(item: tuple[str, float]) -> tuple[int, str]:
    key = item[0]
    return (("step", "epoch").index(key) if key in ("step", "epoch") else 2, key)


class MethodState(TrainerCallback):
    """Tell the method that the optimizer made a step."""

    def __init__(self, method: Method):
        self._method = method

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Pass on the progress, 0 to 1."""
        self._method.after_step(state.global_step / max(1, state.max_steps))


class StepFlow(TrainerCallback):
    """Evaluate before the first step and after the last; log at every checkpoint.

    The trainer forgets the sums behind a log line when it is interrupted: with a line at every
    checkpoint, a resumed run logs what an uninterrupted one does.

    Args:
        evaluate: evaluates and logs; None where there is nothing to evaluate on.
    """

    def __init__(self, evaluate: Callable[[], Any] | None):
        self._evaluate = evaluate

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Evaluate, unless the run goes on from a checkpoint."""
        # Not before train(): the trainer begins with an empty log.
        if state.global_step == 0 and self._evaluate is not None:
            self._evaluate()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Ask for an evaluation, a checkpoint and a line of the log."""
        if state.global_step >= state.max_steps and self._evaluate is not None:
            control.should_evaluate = True
            control.should_save = True
        if control.should_save:
            control.should_log = True


class Trace(TrainerCallback):
    """Measure before the first step, every so many steps, and after the last.

    Args:
        every: steps between measurements.
        measure: measures and logs.
    """

    def __init__(self, every: int, measure: Callable[[], Any]):
        self._every = every
        self._measure = measure

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Measure, unless the run goes on from a checkpoint."""
        if state.global_step == 0:
            self._measure()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Measure where it is time."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._measure()


class MetricsFile(TrainerCallback):
    """Keep metrics.jsonl equal to the trainer's log, so that a resumed run has no gap in it."""

    def __init__(self, path: Path):
        self._path = path
        self._written = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start from the rows of the checkpoint, if there is one."""
        rows = history_rows(state.log_history)
        write_whole(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._written = len(rows)

    def on_log(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Append what is new."""
        rows = history_rows(state.log_history)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[self._written :])
        self._written = len(rows)


class ProgressBar(TrainerCallback):
    """Sentences done, speed, time left, negatives, loss beside ln(candidates), dev score."""

    def __init__(self, sentences_per_step: int, negatives: str):
        self._per_step = sentences_per_step
        self._negatives = negatives
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Open the bar where somebody can see it."""
        self._bar = progress_bar(
            total=state.max_steps * self._per_step,
            initial=state.global_step * self._per_step,
            unit=" sentences",
            desc=f"train ({self._negatives})",
            dynamic_ncols=True,
        )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Move on by one step."""
        if self._bar is not None:
            self._bar.update(state.global_step * self._per_step - self._bar.n)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Show the newest numbers."""
        logs = logs or {}
        if "loss" in logs:
            reference = f" (ln B {logs['ln_batch']:.2f})" if "ln_batch" in logs else ""
            self._shown["loss"] = f"{logs['loss']:.4f}{reference}"
        for key, text in (("eval_dev_spearman", "dev"), ("eval_dev_loss", "dev loss")):
            if key in logs:
                self._shown[text] = f"{logs[key]:.4g}"
        if self._bar is not None and self._shown:
            self._bar.set_postfix(self._shown, refresh=False)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
