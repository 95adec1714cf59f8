"""Index tensors of a packed batch on an accelerator, sent there in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.utils.host_copies import send

__all__ = ["DeviceIndex", "index_on", "positions_of", "uses_index"]


@dataclass(frozen=True)
class DeviceIndex:
    """Where the rows of a packed batch lie, as int64 tensors on an accelerator.

    R rows of up to L tokens have T tokens together. They lie in the order of the layout.

    Attributes:
        shape: R and L.
        order: ``(R,)`` number of the row in the batch.
        places: ``(R,)`` place of each row of the batch, the inverse of ``order``.
        starts: ``(R + 1,)`` number of the first token of each row, and T.
        positions: ``(T,)`` position of each token in its row, from 0.
        cells: ``(T,)`` number of the cell of each token among the ``R * L`` of a padded batch.
        tokens: ``(R * L,)`` number of the token in each cell; in padding, the last one of the row.
        ids: ``(T,)`` further numbers of the tokens that were sent in the same copy.
    """

    shape: tuple[int, int]
    order: Tensor
    places: Tensor
    starts: Tensor
    positions: Tensor
    cells: Tensor
    tokens: Tensor
    ids: Tensor

    @cached_property
    def boundaries(self) -> Tensor:
        """``starts`` in int32, as the kernels for variable lengths take it (``cu_seqlens``)."""
        return self.starts.to(torch.int32)

    @cached_property
    def mask(self) -> Tensor:
        """``(R, L)`` bool, False in the padding."""
        lengths = self.starts.diff()
        return torch.arange(self.shape[1], device=lengths.device) < lengths[:, None]

    @cached_property
    def of_firsts(self) -> DeviceIndex:
        """The index of the first tokens only."""
        rows = self.shape[0]
        starts = torch.arange(rows + 1, device=self.starts.device)
        each = starts[:-1]
        return replace(
            self,
            shape=(rows, 1),
            starts=starts,
            positions=torch.zeros_like(each),
            cells=each,
            tokens=each,
        )

    def pad(self, tokens: Tensor) -> Tensor:
        """Pad ``(T, ...)`` to ``(R, L, ...)`` with the last token of each row."""
        return tokens.index_select(0, self.tokens).view(*self.shape, *tokens.shape[1:])

    def unpad(self, padded: Tensor) -> Tensor:
        """Remove the padding: ``(R, L, ...)`` to ``(T, ...)``."""
        return padded.flatten(0, 1).index_select(0, self.cells)


def uses_index(device: torch.device) -> bool:
    """Whether packed batches on a device use a :class:`DeviceIndex`.

    On a CPU, operators over groups of rows of equal length are faster. On an accelerator every
    operator costs a launch, so that no loop may depend on the number of groups.
    """
    return device.type != "cpu"


def positions_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the tokens of each row from 0, for rows with these numbers of tokens: ``(T,)``."""
    ends = lengths.cumsum()
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


def index_on(
    device: torch.device,
    order: Sequence[int],
    lengths: NDArray[np.int64],
    ids: NDArray[np.int64] | None = None,
) -> DeviceIndex:
    """Compute the index tensors on the host and send them to a device.

    Args:
        device: Destination.
        order: Number in the batch of each row of the layout.
        lengths: ``(R,)`` number of tokens of each row of the layout.
        ids: ``(T,)`` further numbers to send, such as the token ids.
    """
    rows, longest = len(lengths), int(lengths.max())
    starts = np.concatenate([[0], lengths.cumsum()])
    positions = positions_of(lengths)
    within = np.minimum(np.arange(longest), lengths[:, None] - 1)
    parts = [
        np.asarray(order),
        np.argsort(order),
        starts,
        positions,
        np.repeat(np.arange(rows) * longest, lengths) + positions,
        (starts[:-1, None] + within).ravel(),
        np.empty(0, np.int64) if ids is None else ids,
    ]
    sent = send(torch.from_numpy(np.concatenate(parts)), device)
    return DeviceIndex((rows, longest), *torch.split(sent, [len(part) for part in parts]))
