"""Layout of the rows of a batch: packed end to end, or grouped into unpacked forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain, groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.packing.device_index import (
    DeviceIndex,
    index_on,
    positions_of,
    uses_index,
)
from simcse_kit.encoder.row_lengths import lengths_of

__all__ = [
    "MULTIPLE",
    "AttentionOptionsError",
    "Batching",
    "Layout",
    "UnpackableError",
    "Unpacked",
    "Window",
    "layout_of",
    "pack",
    "pack_rows",
]

# oneDNN compiles a kernel for every new number of tokens, which takes milliseconds and memory.
MULTIPLE = 32


@dataclass(frozen=True)
class Layout:
    """Rows of a packed batch, longest first, so that rows of equal length are adjacent.

    Attributes:
        order: ``(R,)`` int64 on the tokens' device; the row number at each place.
        groups: ``(rows, length)`` of each run of rows of equal length.
        index: Index tensors on an accelerator; None on a CPU.

    Examples:
        >>> tokens, layout = pack_rows([[5, 6], [1, 2, 3], [7, 8]], torch.device("cpu"))
        >>> tokens.tolist(), layout.order.tolist(), layout.groups
        ([1, 2, 3, 5, 6, 7, 8], [1, 0, 2], ((1, 3), (2, 2)))
    """

    order: Tensor
    groups: tuple[tuple[int, int], ...]
    index: DeviceIndex | None = None

    @property
    def sizes(self) -> list[int]:
        """Number of tokens of each group."""
        return [rows * length for rows, length in self.groups]

    @property
    def tokens(self) -> int:
        """Number of tokens of all rows."""
        return sum(self.sizes)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest row."""
        return self.groups[0][1]

    def of_firsts(self) -> Layout:
        """Return the layout of the first tokens only, in the same groups."""
        return Layout(
            self.order,
            tuple((rows, 1) for rows, _ in self.groups),
            None if self.index is None else self.index.of_firsts,
        )

    def firsts(self, tokens: Tensor) -> Tensor:
        """Select the first token of each row: ``(T, ...)`` to ``(R, ...)``, in this order."""
        if self.index is not None:
            return tokens.index_select(0, self.index.starts[:-1])
        return torch.cat([group[:, 0] for group in self.by_group(tokens)])

    def positions(self, device: torch.device) -> Tensor:
        """Return the position of every token in its row, ``(T,)`` int64 from 0."""
        if self.index is not None:
            return self.index.positions
        longest = torch.arange(self.longest, device=device)
        return torch.cat([longest[:length].repeat(rows) for rows, length in self.groups])

    def by_group(self, tokens: Tensor) -> list[Tensor]:
        """Split ``(T, ...)`` into a view ``(rows, length, ...)`` for each group."""
        # TRAP: not slices. The backward pass of a slice fills a tensor of the full size; that of
        # a split is one concatenation.
        return [
            part.view(rows, length, *tokens.shape[1:])
            for part, (rows, length) in zip(
                torch.split(tokens, self.sizes), self.groups, strict=True
            )
        ]

    def to_batch_order(self, rows: Tensor) -> Tensor:
        """Reorder ``(R, ...)`` from the order of this layout to the order of the batch."""
        if self.index is not None:
            return rows.index_select(0, self.index.places)
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        return rows[back]


def layout_of(lengths: Sequence[int], device: torch.device) -> Layout:
    """Make the layout of rows with these numbers of tokens."""
    return _layout(lengths, _longest_first(lengths), device)


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def _layout(
    lengths: Sequence[int],
    order: Sequence[int],
    device: torch.device,
    ids: NDArray[np.int64] | None = None,
) -> Layout:
    """Make the layout of rows in an order; ``ids`` are sent to an accelerator with its index."""
    ordered = [lengths[row] for row in order]
    groups = tuple((sum(1 for _ in rows), length) for length, rows in groupby(ordered))
    if uses_index(device):
        index = index_on(device, order, np.array(ordered, dtype=np.int64), ids)
        return Layout(index.order, groups, index)
    return Layout(torch.tensor(order, device=device), groups)


def pack(input_ids: Tensor, attention_mask: Tensor, *, multiple: int = 1) -> tuple[Tensor, Layout]:
    """Remove the padding of a batch.

    On an accelerator the host needs the lengths of the rows: see
    :func:`~simcse_kit.encoder.row_lengths.lengths_of`.

    Args:
        input_ids: ``(R, L)`` int64, padded on the right; at least one token per row.
        attention_mask: ``(R, L)``, 1 for tokens, 0 for padding.
        multiple: Divisor of T on a CPU; rows of a single token are appended as rows R, R + 1, ...
            if needed.

    Returns:
        The tokens ``(T,)`` and their layout.
    """
    lengths, device = lengths_of(attention_mask), input_ids.device
    if uses_index(device):
        order = _longest_first(lengths)
        ordered = np.array(lengths)[order]
        starts = np.array(order) * input_ids.shape[1]
        cells = np.repeat(starts, ordered) + positions_of(ordered)
        layout = _layout(lengths, order, device, cells)
        assert layout.index is not None
        return input_ids.flatten().index_select(0, layout.index.ids), layout
    layout = layout_of(lengths, device)
    tokens = input_ids[layout.order][attention_mask[layout.order].bool()]
    extra = -len(tokens) % multiple
    if extra:
        added = torch.arange(len(lengths), len(lengths) + extra, device=tokens.device)
        layout = Layout(torch.cat([layout.order, added]), (*layout.groups, (extra, 1)))
        tokens = torch.cat([tokens, tokens[:1].expand(extra)])
    return tokens, layout


def pack_rows(
    rows: Sequence[Sequence[int]], device: torch.device, *, multiple: int = 1
) -> tuple[Tensor, Layout]:
    """Concatenate rows of token ids.

    Args:
        rows: Token ids of each row, at least one.
        device: Device of the result.
        multiple: See :func:`pack`.

    Returns:
        The tokens ``(T,)`` int64 and their layout.
    """
    indexed = uses_index(device)
    if not indexed:
        rows = [*rows, *([rows[0][:1]] * (-sum(map(len, rows)) % multiple))]
    lengths = [len(row) for row in rows]
    order = _longest_first(lengths)
    ids = np.fromiter(
        chain.from_iterable(rows[row] for row in order), dtype=np.int64, count=sum(lengths)
    )
    layout = _layout(lengths, order, device, ids)
    return torch.from_numpy(ids) if layout.index is None else layout.index.ids, layout


@dataclass(frozen=True)
class Window:
    """The tokens of its row that a token attends to.

    Attributes:
        behind: Number of tokens before the token itself; None for all.
        ahead: Number of tokens after the token itself; None for all, 0 in causal models.
    """

    behind: int | None = None
    ahead: int | None = None

    def within(self, length: int) -> Window:
        """Return the same window for rows of at most ``length`` tokens, without needless limits."""

        def limit(side: int | None) -> int | None:
            return None if side is None or side >= length - 1 else side

        # A causal window stays causal in rows of a single token.
        return Window(limit(self.behind), self.ahead if self.ahead == 0 else limit(self.ahead))


class Unpacked(Enum):
    """Which rows may share a forward pass that is not packed."""

    PADDED = "rows of all lengths, padded"
    EQUAL_LENGTHS = "rows of equal length"
    SINGLE_ROWS = "a single row"


@dataclass(frozen=True)
class Batching:
    """How the batches of a model run.

    Attributes:
        packed: Whether batches may be packed.
        unpacked: Which rows share a forward pass of a batch that is not packed.
    """

    packed: bool
    unpacked: Unpacked = Unpacked.PADDED


class UnpackableError(Exception):
    """The attention of a model does something that packed batches do not support.

    The text continues a sentence that begins with the name of the model. The encoder catches the
    error and runs the batch unpacked.
    """


class AttentionOptionsError(UnpackableError):
    """A model gives its attention options that packed attention does not support.

    Args:
        names: Names of the options.
    """

    def __init__(self, names: list[str]):
        super().__init__(f"passes its attention the options {', '.join(names)}")
        self.names = names
