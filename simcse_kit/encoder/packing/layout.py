"""How the rows of a batch lie end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

__all__ = ["MULTIPLE", "Layout", "layout_of", "pack", "pack_rows"]

# oneDNN makes a kernel for every new number of tokens, which takes it milliseconds and memory.
MULTIPLE = 32


@dataclass(frozen=True)
class Layout:
    """Rows of a batch, longest first, so that rows of one length are neighbours.

    Attributes:
        order: ``(R,)`` int64 on the tokens' device; the row that lies at each place.
        groups: ``(rows, length)`` of each run of equally long rows.
    """

    order: Tensor
    groups: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each group; they add up to all tokens."""
        return [rows * length for rows, length in self.groups]

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.sizes)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.groups[0][1]

    def of_firsts(self) -> Layout:
        """The layout of the first tokens alone, in the same groups."""
        return Layout(self.order, tuple((rows, 1) for rows, _ in self.groups))

    def firsts(self, tokens: Tensor) -> Tensor:
        """``(T, ...)`` to ``(R, ...)``: the first token of each row, in the layout's order."""
        return torch.cat([group[:, 0] for group in self.by_group(tokens)])

    def positions(self, device: torch.device) -> Tensor:
        """``(T,)`` int64: the place of every token in its row, from 0."""
        longest = torch.arange(self.longest, device=device)
        return torch.cat([longest[:length].repeat(rows) for rows, length in self.groups])

    def boundaries(self, device: torch.device) -> Tensor:
        """``(R + 1,)`` int32: where each row begins, and the end (``cu_seqlens`` of kernels)."""
        lengths = [length for rows, length in self.groups for _ in range(rows)]
        ends = torch.tensor([0, *lengths]).cumsum(0)
        return ends.to(device=device, dtype=torch.int32)

    def by_group(self, tokens: Tensor) -> list[Tensor]:
        """``(T, ...)`` cut into ``(rows, length, ...)`` for each group, as views."""
        # TRAP: not slices. The backward pass of a slice fills a tensor of the full size; that of
        # a split is one concatenation.
        return [
            part.view(rows, length, *tokens.shape[1:])
            for part, (rows, length) in zip(
                torch.split(tokens, self.sizes), self.groups, strict=True
            )
        ]

    def to_batch_order(self, rows: Tensor) -> Tensor:
        """``(R, ...)`` in the order of this layout to the order of the batch."""
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        return rows[back]


def layout_of(lengths: Sequence[int], device: torch.device) -> Layout:
    """The layout of rows with so many tokens each."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups = groupby(lengths[row] for row in order)
    return Layout(
        torch.tensor(order, device=device),
        tuple((sum(1 for _ in rows), length) for length, rows in groups),
    )


def pack(input_ids: Tensor, attention_mask: Tensor, *, multiple: int = 1) -> tuple[Tensor, Layout]:
    """Take the padding out of a batch.

    Args:
        input_ids: ``(R, L)`` int64, padded on the right; at least one token in every row.
        attention_mask: ``(R, L)``, 1 for tokens, 0 for padding.
        multiple: of which T is to be; single tokens are added as rows R, R + 1, ….

    Returns:
        The tokens ``(T,)``, and how they lie.
    """
    lengths = attention_mask.sum(dim=1, dtype=torch.int64).tolist()
    layout = layout_of(lengths, input_ids.device)
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
    """Lay rows of token ids, none of them empty, end to end.

    Args:
        rows: the token ids of each row.
        device: where the tokens go.
        multiple: as for :func:`pack`.

    Returns:
        The tokens ``(T,)`` int64, and how they lie.
    """
    rows = [*rows, *([rows[0][:1]] * (-sum(map(len, rows)) % multiple))]
    layout = layout_of([len(row) for row in rows], device)
    ids = [token for row in layout.order.tolist() for token in rows[row]]
    return torch.tensor(ids, device=device), layout
