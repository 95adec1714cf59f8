"""Vectors and devices as callers give them, checked before anything is computed."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from simcse_kit.encoder.inputs import shown, whole_number
from simcse_kit.encoder.torch_state import usual_state
from simcse_kit.errors import ConfigError, DataError

__all__ = ["cosines", "given_vectors", "known_device", "put_on"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def known_device(device: Any) -> torch.device:
    """The device that an argument names; the CPU for None.

    Raises:
        ConfigError: it names none, or one that holds no numbers.
    """
    if device is None:
        return torch.device("cpu")
    number = whole_number(device)
    try:
        if number is None and not isinstance(device, str | torch.device):
            raise RuntimeError("it is neither a name, a number nor a torch.device")
        found = torch.device(device if number is None else number)
        if found.type == "meta":
            raise RuntimeError("tensors there have no numbers")
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device {shown(device)} cannot be used: {reason}") from error
    return found


def put_on(module: AnyModule, device: torch.device) -> AnyModule:
    """Move a module's weights to a device.

    Raises:
        ConfigError: there is no such device here.
    """
    try:
        with torch.inference_mode(False):  # weights made in that mode could not be trained
            return module.to(device)
    # torch reports an unknown or absent device in several ways.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"device {str(device)!r} cannot be used: {reason}") from error


def cosines(left: Tensor, right: Tensor) -> NDArray[np.float32]:
    """Cosine of every pair of ``(n, d)`` and ``(m, d)`` float32 rows: ``(n, m)``.

    Raises:
        DataError: the widths differ.
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
    """Vectors that a caller gives, as float32 rows on the CPU; None where these are no numbers.

    Args:
        side: an array or tensor of numbers, ``(n, d)`` or ``(d,)``, of any type and device; or a
            list of such vectors.

    Returns:
        ``(n, d)``.

    Raises:
        DataError: it has another number of dimensions, or holds NaN, infinity or complex numbers.
    """
    if isinstance(side, list | tuple) and side and isinstance(side[0], np.ndarray | Tensor):
        side = _stacked(side)
    if isinstance(side, np.ndarray):
        if side.dtype.kind not in "fiubc":
            return None
        if side.dtype.kind == "c":
            raise DataError(f"vectors are of type {side.dtype}; give real numbers")
        rows = torch.from_numpy(np.asarray(side, dtype=np.float32, order="C"))
    elif isinstance(side, Tensor):
        if side.is_complex():
            raise DataError(f"vectors are of type {side.dtype}; give real numbers")
        rows = side.detach().to(device="cpu", dtype=torch.float32)
    else:
        return None
    if rows.ndim not in (1, 2):
        raise DataError(f"vectors have the shape {tuple(rows.shape)}; give (n, d) or (d,)")
    rows = rows[None] if rows.ndim == 1 else rows
    bad = (~rows.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise DataError(
            f"vector {int(bad[0])} holds NaN or infinity; its cosine with others is undefined"
        )
    return rows


def _stacked(rows: Any) -> Tensor:
    parts = [torch.as_tensor(row).detach().to(device="cpu", dtype=torch.float32) for row in rows]
    shapes = sorted({tuple(part.shape) for part in parts})
    if len(shapes) > 1:
        raise DataError(f"vectors have different shapes: {', '.join(map(str, shapes[:3]))}")
    return torch.stack(parts)
