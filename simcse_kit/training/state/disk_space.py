"""What a run will write, and whether there is room for it."""

from __future__ import annotations

from pathlib import Path

import torch

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.utils.files import free_bytes

__all__ = ["check_room", "checkpoint_bytes"]

# Tokenizer, logs, curves and the state of the trainer.
_SMALL_FILES = 20_000_000


def checkpoint_bytes(method: Method) -> int:
    """A checkpoint: parameters and buffers, and the two moments of Adam for what is trained."""
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    return sum(map(_bytes, method.state_dict().values())) + 2 * sum(map(_bytes, trained))


def check_room(method: Method, checkpoints: Path, kept: int | None, steps: int) -> None:
    """Refuse a run that would fill the disk, before its first step.

    Args:
        method: that will be trained.
        checkpoints: the folder of the checkpoints; those that are there need no more room.
        kept: most checkpoints kept at a time; None: all.
        steps: times that a checkpoint is written.

    Raises:
        ConfigError: too little room.
    """
    size = checkpoint_bytes(method)
    # The newest is written before the oldest is removed.
    most = steps if kept is None else min(steps, kept + 1)
    new = max(1, most - len(checkpoint_steps(checkpoints)))
    encoder = sum(map(_bytes, method.encoder.state_dict().values()))
    needed, free = new * size + 2 * encoder + _SMALL_FILES, free_bytes(checkpoints)
    if needed > free:
        raise ConfigError(
            f"training.output: the run will write about {needed / 1e6:,.0f} MB ({new} checkpoints "
            f"of {size / 1e6:,.0f} MB, and the encoder) and {checkpoints.parent} has room for "
            f"{free / 1e6:,.0f} MB; make room or give --output a folder on another disk"
        )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
