"""Cosines of sentences or of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder.inference import checked_texts
from simcse_kit.errors import DataError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Side", "similarity"]

Side: TypeAlias = str | Sequence[str] | NDArray[Any] | Tensor
"""One sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``."""


def similarity(encoder: SentenceEncoder, a: Side, b: Side) -> NDArray[np.float32]:
    """Cosine of every pair; see :meth:`simcse_kit.encoder.encoder.SentenceEncoder.similarity`."""
    left, right = _sides(encoder, a, b)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise DataError(
            f"vectors of shapes {tuple(left.shape)} and {tuple(right.shape)} cannot be "
            "compared; give (n, d) and (m, d)"
        )
    cosines = unit_length(left, dim=1) @ unit_length(right, dim=1).T
    return np.asarray(cosines.clamp(-1, 1).numpy())


def _sides(encoder: SentenceEncoder, a: Side, b: Side) -> tuple[Tensor, Tensor]:
    if any(isinstance(side, (Tensor, np.ndarray)) for side in (a, b)):
        return _vectors(encoder, a), _vectors(encoder, b)
    # In one call, which logs where sentences of the two sides get equal tokens.
    texts = checked_texts(a)
    both = encoder.encode(texts + checked_texts(b), to="torch").cpu()
    return both[: len(texts)], both[len(texts) :]


def _vectors(encoder: SentenceEncoder, side: Side) -> Tensor:
    if isinstance(side, np.ndarray) and side.dtype.kind in "fiub":
        side = from_numpy(side.astype(np.float32))
    if isinstance(side, Tensor):
        rows = side.detach().float().cpu()
        return rows[None] if rows.ndim == 1 else rows
    return encoder.encode(checked_texts(side), to="torch").cpu()
