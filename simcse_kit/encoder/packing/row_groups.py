"""Which rows of a batch share a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["AttentionOptionsError", "Batching", "UnpackableError", "Unpacked"]


class Unpacked(Enum):
    """Which rows share a forward pass that is not packed."""

    PADDED = "rows of all lengths, padded"
    EQUAL_LENGTHS = "rows of equal length"
    SINGLE_ROWS = "a single row"


@dataclass(frozen=True)
class Batching:
    """How the batches of a model run.

    Attributes:
        packed: whether rows may lie end to end, without padding.
        unpacked: which rows share a pass where they are not packed.
    """

    packed: bool
    unpacked: Unpacked = Unpacked.PADDED


class UnpackableError(Exception):
    """A model does in its attention what packed batches do not provide for.

    The text continues a sentence that begins with the name of the model. The encoder catches it and
    runs the batch unpacked.
    """


class AttentionOptionsError(UnpackableError):
    """A model gives its attention options that packed attention does not have.

    Args:
        names: of the options.
    """

    def __init__(self, names: list[str]):
        super().__init__(f"gives its attention the options {', '.join(names)}")
        self.names = names
