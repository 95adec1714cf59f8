"""Cosines of sentences or of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.encoder.vectors import cosines, given_vectors

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Side", "similarity"]

Side: TypeAlias = str | Sequence[str] | NDArray[Any] | Tensor
"""One sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``."""


def similarity(encoder: SentenceEncoder, a: Side, b: Side) -> NDArray[np.float32]:
    """Cosine of every pair; see :meth:`simcse_kit.encoder.encoder.SentenceEncoder.similarity`."""
    return cosines(*_sides(encoder, a, b))


def _sides(encoder: SentenceEncoder, a: Side, b: Side) -> tuple[Tensor, Tensor]:
    left, right = given_vectors(a), given_vectors(b)
    if left is None and right is None:
        # In one call, which logs where sentences of the two sides get equal tokens.
        texts = checked_texts(a)
        both = encoder.encode(texts + checked_texts(b), to="torch").cpu()
        return both[: len(texts)], both[len(texts) :]
    if left is None:
        left = encoder.encode(checked_texts(a), to="torch").cpu()
    if right is None:
        right = encoder.encode(checked_texts(b), to="torch").cpu()
    return left, right
