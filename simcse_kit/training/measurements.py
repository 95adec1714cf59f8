"""What is measured during training, and the numbers of its log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from simcse_kit.training.monitor.divergence import host_numbers
from simcse_kit.training.monitor.geometry_probe import Probe
from simcse_kit.training.selection import Scorer

__all__ = ["LogLine", "Measurements"]


@dataclass(frozen=True)
class Measurements:
    """What is measured during training and logged with the loss.

    Attributes:
        scorer: computes the dev metrics of the method at every evaluation; None: no evaluation.
        start_scorer: computes those of the start, before the first step; None: ``scorer`` does.
        probe: measures the geometry of the embeddings for the trace; None: no trace.
        reference_loss: ln(candidates), the loss of an encoder that gives every sentence the same
            vector, logged as ``ln_batch`` unless the method logs its own; None: no such number.
        sentences_per_step: sentences of an optimizer step, for the speed.
    """

    scorer: Scorer | None
    probe: Probe | None
    reference_loss: float | None
    sentences_per_step: int
    start_scorer: Scorer | None = None


class LogLine:
    """The numbers of the next training line: means of the method's logs, and the speed.

    Tensors are collected where they are and read when the line is written.
    """

    def __init__(self, measurements: Measurements):
        self._measurements = measurements
        self._collected: dict[str, list[Tensor | float]] = {}
        self._mark = (time.perf_counter(), 0)
        self._measuring = 0.0

    def collect(self, logs: Mapping[str, Tensor | float]) -> None:
        """Add the logs of a batch."""
        for name, value in logs.items():
            self._collected.setdefault(name, []).append(value)

    def leave_out(self, seconds: float) -> None:
        """Subtract time, such as that of an evaluation, from the training time."""
        self._measuring += seconds

    def complete(self, logs: dict[str, float], step: int) -> None:
        """Add the collected means, ln(candidates) and the speed to a line, and start a new one.

        Args:
            logs: numbers by name; they are changed in place.
            step: number of optimizer steps so far.
        """
        values = [value for values in self._collected.values() for value in values]
        numbers = iter(host_numbers(values))
        for name, same in self._collected.items():
            logs[name] = sum(next(numbers) for _ in same) / len(same)
        self._collected.clear()
        if self._measurements.reference_loss is not None:
            logs.setdefault("ln_batch", self._measurements.reference_loss)
        now = time.perf_counter()
        seconds = now - self._mark[0] - self._measuring
        if self._mark[1] and seconds > 0:
            done = (step - self._mark[1]) * self._measurements.sentences_per_step
            logs["sentences_per_second"] = round(done / seconds, 1)
        self._mark, self._measuring = (now, step), 0.0
