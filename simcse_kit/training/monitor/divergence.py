"""Detection of a NaN or infinite loss or gradient, with the batch that caused it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch import Tensor

from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.utils.files import write_atomic

__all__ = ["BATCH_FILE", "check_finite"]

BATCH_FILE = "diverged-batch.jsonl"
"""File in the output folder: a line with step and value, then a line for every row."""


def check_finite(
    what: str,
    value: Tensor | float,
    method: Method,
    inputs: dict[str, Tensor],
    *,
    step: int,
    checkpoints: Path,
    write: bool = True,
) -> None:
    """Stop the training if a number is NaN or infinite, before it reaches the weights.

    Args:
        what: name of the number.
        value: the number.
        method: the method in training, whose tokenizer decodes the batch.
        inputs: the batch.
        step: number of the current optimizer step, from 1.
        checkpoints: folder of the checkpoints; the batch is written next to it.
        write: whether this process writes the batch.

    Raises:
        ModelError: the number is NaN or infinite.
    """
    number = float(value)
    if math.isfinite(number):
        return
    place = checkpoints.parent / BATCH_FILE
    if write:
        write_atomic(place, _lines(what, number, method, inputs, step))
    kept = list(checkpoint_steps(checkpoints))
    good = f"the checkpoint of step {kept[-1]} is good" if kept else "there is no checkpoint yet"
    raise ModelError(
        f"step {step}: {what} is {number}, so the training has diverged; its batch is in {place}, "
        f"and {good}; lower training.learning_rate, or look for unusual rows in the batch"
    )


def _lines(what: str, number: float, method: Method, inputs: dict[str, Tensor], step: int) -> str:
    tokenizer = method.encoder.tokenizer
    rows: list[dict[str, object]] = [{"step": step, "what": what, "value": str(number)}]
    tensors = (inputs[name] for name in ("input_ids", "attention_mask", "view_mask"))
    for row, parts in enumerate(zip(*tensors, strict=True)):
        views = zip(*parts, strict=True)
        kept = [ids[mask.bool()].tolist() for ids, mask, present in views if present]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        line: dict[str, object] = {"texts": texts, "input_ids": kept}
        if inputs.get("labels") is not None:
            line["label"] = float(inputs["labels"][row])
        rows.append(line)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows)
