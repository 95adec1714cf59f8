"""Detection of a NaN or infinite loss or gradient, with the batch that caused it."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simcse_kit.data.collate import Collated
from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.utils.files import write_atomic

__all__ = ["BATCH_FILE", "FiniteChecks", "host_numbers"]

BATCH_FILE = "diverged-batch.jsonl"
"""File in the output folder: a line with step and value, then a line for every row."""
# Numbers that wait for an accelerator, two for each step.
_MOST_WAITING = 32


@dataclass(frozen=True)
class _Reading:
    """A number of a step that may not have arrived on the host yet."""

    what: str
    value: Tensor
    inputs: Collated
    step: int
    arrival: Any  # torch.cuda.Event, or None


class FiniteChecks:
    """Checks that stop the training at a NaN or infinite loss or gradient.

    A number on the CPU is checked at once, before it reaches the weights. An accelerator works
    behind the host, which must not wait for it in every step: numbers on CUDA are copied in the
    background and checked when they have arrived, one step later or a few. :meth:`settle` checks
    all that are left; it is called before anything is logged, measured or saved, so that no
    checkpoint contains weights from after such a step.

    Args:
        method: method in training, whose tokenizer decodes the batch.
        checkpoints: folder of the checkpoints; the batch is written next to it.
        write: whether this process writes the batch.
    """

    def __init__(self, method: Method, checkpoints: Path, *, write: bool = True):
        self._method = method
        self._checkpoints = checkpoints
        self._write = write
        self._waiting: deque[_Reading] = deque()

    def check(self, what: str, value: Tensor | float, inputs: Collated, step: int) -> None:
        """Check a number, and the earlier numbers that have arrived.

        Args:
            what: name of the number.
            value: scalar.
            inputs: batch of the step.
            step: number of the optimizer step, from 1.

        Raises:
            ModelError: A number is NaN or infinite.
        """
        if not isinstance(value, Tensor) or value.device.type == "cpu":
            self._judge(what, float(value), inputs, step)
            return
        arrival = None
        if value.device.type == "cuda":
            stream = torch.cuda.current_stream(value.device)
            # A copy to the host that does not block goes to page-locked memory.
            value = value.detach().to("cpu", non_blocking=True)
            arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrival.record(stream)
        self._waiting.append(_Reading(what, value.detach(), inputs, step, arrival))
        while self._waiting and _has_arrived(self._waiting[0]):
            self._take()
        # The batches of the waiting steps stay in memory.
        if len(self._waiting) > _MOST_WAITING:
            self._wait()

    def settle(self) -> None:
        """Wait for all numbers and check them.

        Raises:
            ModelError: A number is NaN or infinite.
        """
        while self._waiting:
            self._wait()

    def _wait(self) -> None:
        """Wait for the oldest number; without an event this waits for all work of the device."""
        oldest = self._waiting[0]
        if oldest.arrival is not None:
            oldest.arrival.synchronize()
            self._take()
            return
        waiting, self._waiting = self._waiting, deque()
        numbers = host_numbers([reading.value for reading in waiting])
        for reading, number in zip(waiting, numbers, strict=True):
            self._judge(reading.what, number, reading.inputs, reading.step)

    def _take(self) -> None:
        reading = self._waiting.popleft()
        self._judge(reading.what, float(reading.value), reading.inputs, reading.step)

    def _judge(self, what: str, number: float, inputs: Collated, step: int) -> None:
        if math.isfinite(number):
            return
        place = self._checkpoints.parent / BATCH_FILE
        if self._write:
            write_atomic(place, _lines(what, number, self._method, inputs, step))
        kept = list(checkpoint_steps(self._checkpoints))
        good = (
            f"the checkpoint of step {kept[-1]} is good" if kept else "there is no checkpoint yet"
        )
        raise ModelError(
            f"step {step}: {what} is {number}, so the training has diverged; its batch is in "
            f"{place}, and {good}; lower training.learning_rate, or look for unusual rows in the "
            "batch"
        )


def _has_arrived(reading: _Reading) -> bool:
    return reading.arrival is not None and bool(reading.arrival.query())


def host_numbers(values: Sequence[Tensor | float]) -> list[float]:
    """Convert scalars to numbers; those on an accelerator are read together, in one copy.

    Examples:
        >>> host_numbers([torch.tensor(0.5), 2, torch.tensor([3])])
        [0.5, 2.0, 3.0]
    """
    numbers: list[Any] = list(values)
    away = [
        place
        for place, value in enumerate(numbers)
        if isinstance(value, Tensor) and value.device.type != "cpu"
    ]
    if away:
        together = torch.stack([numbers[place].detach().float().reshape(()) for place in away])
        for place, number in zip(away, together.tolist(), strict=True):
            numbers[place] = number
    return [float(value) for value in numbers]


def _lines(what: str, number: float, method: Method, inputs: Collated, step: int) -> str:
    tokenizer = method.encoder.tokenizer
    rows: list[dict[str, object]] = [{"step": step, "what": what, "value": str(number)}]
    tensors = (inputs[name].cpu() for name in ("input_ids", "attention_mask", "view_mask"))
    for row, parts in enumerate(zip(*tensors, strict=True)):
        views = zip(*parts, strict=True)
        kept = [ids[mask.bool()].tolist() for ids, mask, present in views if present]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        line: dict[str, object] = {"texts": texts, "input_ids": kept}
        if inputs.get("labels") is not None:
            line["label"] = float(inputs["labels"][row])
        rows.append(line)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows)
