"""Numbers of tokens of padded rows, remembered on the host."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.utils.host_copies import host_copy, version_of

__all__ = ["lengths_of", "remember_lengths", "remembered", "take_rows"]

_ATTRIBUTE = "_simcse_row_lengths"


def remember_lengths(attention_mask: Tensor, lengths: NDArray[np.int64]) -> Tensor:
    """Attach the numbers of tokens of its rows to a mask.

    Reading them from a mask on an accelerator would make the host wait for all work on the device.

    Args:
        attention_mask: ``(..., L)``, 1 for tokens, 0 for padding on the right.
        lengths: ``(...)`` number of tokens of each row.

    Returns:
        The same mask.
    """
    setattr(attention_mask, _ATTRIBUTE, (version_of(attention_mask), lengths))
    return attention_mask


def remembered(attention_mask: Tensor) -> NDArray[np.int64] | None:
    """Return the lengths attached to a mask; None if there are none or the mask was written to."""
    version, lengths = getattr(attention_mask, _ATTRIBUTE, (None, None))
    return None if lengths is None or version != version_of(attention_mask) else lengths


def lengths_of(attention_mask: Tensor) -> list[int]:
    """Return the number of tokens of each row of a mask ``(R, L)``.

    Without remembered lengths they are read from the mask, which synchronises an accelerator.

    Examples:
        >>> import torch
        >>> lengths_of(torch.tensor([[1, 1, 0], [1, 1, 1]]))
        [2, 3]
    """
    lengths = remembered(attention_mask)
    found: list[int] = (
        attention_mask.sum(dim=1, dtype=torch.int64) if lengths is None else lengths
    ).tolist()
    return found


def take_rows(attention_mask: Tensor, rows: Tensor) -> Tensor:
    """Select rows of a mask ``(R, L)`` together with their remembered lengths.

    Args:
        attention_mask: ``(R, L)``.
        rows: ``(r,)`` int64, row numbers whose values the host knows, see
            :func:`~simcse_kit.utils.host_copies.send_known`.
    """
    taken, lengths = attention_mask[rows], remembered(attention_mask)
    return taken if lengths is None else remember_lengths(taken, lengths[host_copy(rows).numpy()])
