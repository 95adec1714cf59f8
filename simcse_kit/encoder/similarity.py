"""Cosine similarity of vectors given by callers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from simcse_kit.encoder.device import usual_state
from simcse_kit.errors import DataError

__all__ = ["Side", "cosines", "given_vectors"]

Side: TypeAlias = str | Sequence[str] | NDArray[Any] | Tensor
"""One sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``."""


def cosines(left: Tensor, right: Tensor) -> NDArray[np.float32]:
    """Compute the cosine of every pair of ``(n, d)`` and ``(m, d)`` float32 rows: ``(n, m)``.

    Raises:
        DataError: The vectors of the two sides have different dimensions.
    """
    if left.shape[1] != right.shape[1]:
        raise DataError(
            f"vectors of shapes {tuple(left.shape)} and {tuple(right.shape)} cannot be compared; "
            "give (n, d) and (m, d)"
        )
    with usual_state(left.device):
        products: Tensor = normalize(left, dim=1) @ normalize(right, dim=1).T
        return products.clamp(-1, 1).numpy()


def given_vectors(side: Any) -> Tensor | None:
    """Convert an array or tensor of vectors to float32 rows on the CPU.

    Args:
        side: Array or tensor of numbers, ``(n, d)`` or ``(d,)``, of any type and device; or a list
            of such vectors.

    Returns:
        ``(n, d)``; None if ``side`` does not hold numbers.

    Raises:
        DataError: The number of dimensions is wrong, or a value is NaN, infinite or complex.
    """
    if isinstance(side, list | tuple) and side and isinstance(side[0], np.ndarray | Tensor):
        side = _stacked(side)
    if isinstance(side, np.ndarray):
        if side.dtype.kind not in "fiubc":
            return None
        is_complex = side.dtype.kind == "c"
    elif isinstance(side, Tensor):
        is_complex = side.is_complex()
    else:
        return None
    if is_complex:
        raise DataError(f"vectors are of type {side.dtype}; give real numbers")
    rows = _on_cpu(side)
    if rows.ndim not in (1, 2):
        raise DataError(f"vectors have the shape {tuple(rows.shape)}; give (n, d) or (d,)")
    rows = rows[None] if rows.ndim == 1 else rows
    bad = (~rows.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise DataError(
            f"vector {int(bad[0])} holds NaN or infinity; its cosine with others is undefined"
        )
    return rows


def _on_cpu(numbers: Any) -> Tensor:
    if isinstance(numbers, np.ndarray):
        return torch.from_numpy(np.asarray(numbers, dtype=np.float32, order="C"))
    return cast(Tensor, numbers.detach().to(device="cpu", dtype=torch.float32))


def _stacked(rows: Any) -> Tensor:
    parts = [_on_cpu(torch.as_tensor(row)) for row in rows]
    shapes = sorted({tuple(part.shape) for part in parts})
    if len(shapes) > 1:
        raise DataError(f"vectors have different shapes: {', '.join(map(str, shapes[:3]))}")
    return torch.stack(parts)
