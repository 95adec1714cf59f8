"""What is left of a run whose loss or gradient is no number: the batch, to look at."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch import Tensor

from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.utils.files import write_whole

__all__ = ["BATCH_FILE", "check_finite"]

BATCH_FILE = "diverged-batch.jsonl"
"""In the output folder: the step, what was not finite, then a row of the batch a line."""


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
    """Stop the training where a number is NaN or infinite, before it reaches the weights.

    Args:
        what: the name of the number.
        value: the number.
        method: that is trained; it knows the tokenizer.
        inputs: the batch that led to it.
        step: the optimizer step under way, from 1.
        checkpoints: the folder of the checkpoints; the batch is written beside it.
        write: whether it is, or another process does that.

    Raises:
        ModelError: it is NaN or infinite.
    """
    number = float(value)
    if math.isfinite(number):
        return
    place = checkpoints.parent / BATCH_FILE
    if write:
        write_whole(place, _lines(what, number, method, inputs, step))
    kept = list(checkpoint_steps(checkpoints))
    good = f"the checkpoint of step {kept[-1]} is good" if kept else "there is no checkpoint yet"
    raise ModelError(
        f"step {step}: {what} is {number}, so that the training has diverged; its batch is in "
        f"{place}, and {good}; lower training.learning_rate, or look for odd rows in the batch"
    )


def _lines(what: str, number: float, method: Method, inputs: dict[str, Tensor], step: int) -> str:
    tokenizer = method.encoder.tokenizer
    rows: list[dict[str, object]] = [{"step": step, "what": what, "value": str(number)}]
    for row, (views, masks, there) in enumerate(
        zip(inputs["input_ids"], inputs["attention_mask"], inputs["view_mask"], strict=True)
    ):
        kept = [
            ids[mask.bool()].tolist()
            for ids, mask, present in zip(views, masks, there.tolist(), strict=True)
            if present
        ]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in kept]
        line: dict[str, object] = {"texts": texts, "input_ids": kept}
        if inputs.get("labels") is not None:
            line["label"] = float(inputs["labels"][row])
        rows.append(line)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in rows)
