"""Changes to single cells of a matrix of contrastive logits, without a mask of its size.

Logits come in strips, transposed: (N, t) for all N candidates and t anchors from ``start`` on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["CellChange", "LogWeights", "SameText", "same_text"]

_MOST_CELLS = 1 << 20


class CellChange(Protocol):
    """What alters some cells of a strip of logits in place."""

    def apply(self, strip: Tensor, start: int) -> None:
        """Alter the strip.

        Args:
            strip: (N, t) logits of anchors ``start`` to ``start + t - 1`` against all candidates.
            start: the first anchor.
        """


class LogWeights:
    """Adds one number to given cells; -inf leaves their candidates out.

    Args:
        anchors: (c,) int64 in rising order.
        candidates: (c,) int64.
        log_weight: what is added to each of these cells.
    """

    def __init__(self, anchors: Tensor, candidates: Tensor, log_weight: float):
        self.anchors, self.candidates, self.log_weight = anchors, candidates, log_weight

    def apply(self, strip: Tensor, start: int) -> None:
        """Alter the strip; see :class:`CellChange`."""
        ends = self.anchors.new_tensor([start, start + strip.shape[1]])
        first, last = torch.searchsorted(self.anchors, ends).tolist()
        candidates = self.candidates[first:last]
        anchors = self.anchors[first:last] - start
        strip[candidates, anchors] += self.log_weight


class SameText:
    """Leaves out the candidates that are the same text as the anchor or as its positive.

    Candidates are sorted by id once, so that the copies of a text are one stretch of them. Cells
    are listed a million at a time, so memory is bounded even where all texts are one.

    Args:
        queries: the ids of one or two texts of each anchor, each (R,) int64.
        candidates: (c,) int64 ids.
        columns: (c,) int64, where these candidates stand among the N.
    """

    def __init__(self, queries: list[Tensor], candidates: Tensor, columns: Tensor):
        ids, order = candidates.sort()
        self.columns = columns[order]
        both = torch.stack(queries, dim=1)
        self.texts = both.shape[1]
        first = torch.searchsorted(ids, both)
        count = torch.searchsorted(ids, both, right=True) - first
        if self.texts == 2:
            # An anchor that is the same text as its positive would list each cell twice.
            count[:, 1].masked_fill_(both[:, 0] == both[:, 1], 0)
        self.first, self.count = first.flatten(), count.flatten()
        self.total = int(self.count.sum())

    def apply(self, strip: Tensor, start: int) -> None:
        """Alter the strip; see :class:`CellChange`."""
        stop = start + strip.shape[1]
        for anchors, candidates in self._cells(start * self.texts, stop * self.texts):
            strip[candidates, anchors - start] = -torch.inf

    def _cells(self, begin: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Anchors and candidates of the stretches ``begin`` to ``end``."""
        count = self.count[begin:end]
        total = int(count.sum())
        if total == 0:
            return
        if total > _MOST_CELLS and end - begin > 1:
            middle = (begin + end) // 2
            yield from self._cells(begin, middle)
            yield from self._cells(middle, end)
            return
        stretch = torch.repeat_interleave(count)
        inside = torch.arange(total, device=count.device) - (count.cumsum(0) - count)[stretch]
        candidates = self.columns[self.first[begin:end][stretch] + inside]
        yield (stretch + begin) // self.texts, candidates


def same_text(
    queries: list[Tensor | None], candidates: list[tuple[Tensor | None, Tensor]], expected: int
) -> list[CellChange]:
    """The exclusion of equal texts, or nothing where no text occurs twice.

    Args:
        queries: ids of the texts of each anchor, (R,) each; those not given are not compared.
        candidates: pairs of ids and columns, (c,) each; those without ids are not compared.
        expected: how many cells are equal in any batch, such as an anchor's own positive.
    """
    asked = [ids for ids in queries if ids is not None]
    known = [(ids, columns) for ids, columns in candidates if ids is not None]
    if not asked or not known:
        return []
    change = SameText(
        asked, torch.cat([ids for ids, _ in known]), torch.cat([columns for _, columns in known])
    )
    return [change] if change.total > expected else []
