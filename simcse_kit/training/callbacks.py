"""Callbacks of a run: evaluation schedule, metrics file, progress bar, functions of the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.progress import progress_bar

__all__ = [
    "MethodState",
    "MetricsFile",
    "ProgressBar",
    "RowFunction",
    "StepFlow",
    "Trace",
    "as_callback",
    "history_rows",
]


def history_rows(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Convert the trainer's log to rows of metrics.jsonl, without its summary at the end.

    Step and epoch come first, then all other keys by name: the log of a checkpoint is sorted, and
    a resumed run must write what an uninterrupted one does.
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


def as_callback(callback: object, *, first: bool) -> TrainerCallback:
    """Turn what a user gave into a callback of the trainer.

    Args:
        callback: an instance of ``transformers.TrainerCallback``, which runs in every process; or
            a function, which the first process calls with each new row of metrics.jsonl.
        first: whether this is the first process.

    Raises:
        ConfigError: ``callback`` is neither.
    """
    if isinstance(callback, TrainerCallback):
        return callback
    if callable(callback) and not isinstance(callback, type):
        return RowFunction(callback if first else lambda _: None)
    raise ConfigError(
        f"callbacks contains {callback!r}; give instances of transformers.TrainerCallback, or "
        "functions that take a row of metrics.jsonl as a dict"
    )


class MethodState(TrainerCallback):
    """Call the method's ``after_step`` after every optimizer step."""

    def __init__(self, method: Method):
        self._method = method

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Pass on the progress, 0 to 1."""
        self._method.after_step(state.global_step / max(1, state.max_steps))


class StepFlow(TrainerCallback):
    """Evaluate before the first step and after the last; log at every checkpoint.

    When a run is interrupted, the trainer loses the sums for the next log line. With a line at
    every checkpoint, a resumed run logs what an uninterrupted one does.

    Args:
        evaluate: function that evaluates and logs; None if there is nothing to evaluate on.
    """

    def __init__(self, evaluate: Callable[[], Any] | None):
        self._evaluate = evaluate

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Evaluate, unless the run continues from a checkpoint."""
        # Not before train(), which clears the log.
        if state.global_step == 0 and self._evaluate is not None:
            self._evaluate()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Request an evaluation and a checkpoint after the last step, and the log line."""
        if state.global_step >= state.max_steps and self._evaluate is not None:
            control.should_evaluate = True
            control.should_save = True
        if control.should_save:
            control.should_log = True


class Trace(TrainerCallback):
    """Measure before the first step, at regular steps, and after the last step.

    Args:
        every: steps between measurements.
        measure: function that measures and logs.
    """

    def __init__(self, every: int, measure: Callable[[], Any]):
        self._every = every
        self._measure = measure

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Measure, unless the run continues from a checkpoint."""
        if state.global_step == 0:
            self._measure()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Measure if a measurement is due."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            self._measure()


class RowFunction(TrainerCallback):
    """Call a function with each new row of metrics.jsonl.

    Args:
        function: function of a row: a dict with ``step``, ``epoch`` and what was measured.
    """

    def __init__(self, function: Callable[[dict[str, float]], Any]):
        self._function = function
        self._known = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Skip the rows that come from a checkpoint."""
        self._known = len(history_rows(state.log_history))

    def on_log(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Call the function with the rows that are new."""
        rows = history_rows(state.log_history)
        new, self._known = rows[self._known :], len(rows)
        for row in new:
            self._function(row)


class MetricsFile(RowFunction):
    """Keep metrics.jsonl equal to the trainer's log, so that a resumed run has no gap in it."""

    def __init__(self, path: Path):
        super().__init__(self._append)
        self._path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the file with the rows of the checkpoint, if there is one."""
        super().on_train_begin(args, state, control)
        rows = history_rows(state.log_history)
        write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in rows))

    def _append(self, row: dict[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class ProgressBar(TrainerCallback):
    """Show sentences, speed, time left, negatives, loss with ln(candidates), and dev score."""

    def __init__(self, sentences_per_step: int, negatives: str):
        self._per_step = sentences_per_step
        self._negatives = negatives
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Open the bar if there is a terminal."""
        self._bar = progress_bar(
            total=state.max_steps * self._per_step,
            initial=state.global_step * self._per_step,
            unit=" sentences",
            desc=f"train ({self._negatives})",
            dynamic_ncols=True,
        )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Advance by one step."""
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
