"""Changes of single logits in a strip, without a mask as large as the matrix of logits.

Strips are transposed: (N, t) for all N candidates and t anchors, the first of which is ``start``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor

from simcse_kit.losses.contrastive_batch import Guide
from simcse_kit.losses.similarity import unit_rows
from simcse_kit.utils.host_copies import host_copy, known_on_host, reads_are_free

__all__ = [
    "LogitChange",
    "SameText",
    "add_to_logits",
    "exclude_false_negatives",
    "same_text_changes",
]

LogitChange = Callable[[Tensor, int], None]
"""A function that changes a strip in place, given the strip and its first anchor."""


def add_to_logits(anchors: Tensor, candidates: Tensor, log_weight: float) -> LogitChange:
    """Add a number to given logits; -inf excludes their candidates.

    Args:
        anchors: (c,) int64 in ascending order, whose values the host knows.
        candidates: (c,) int64.
        log_weight: The number added to each of these logits.
    """

    known = host_copy(anchors)

    def change(strip: Tensor, start: int) -> None:
        ends = torch.tensor([start, start + strip.shape[1]])
        first, last = torch.searchsorted(known, ends).tolist()
        strip[candidates[first:last], anchors[first:last] - start] += log_weight

    return change


class SameText:
    """Excludes the candidates with the same text as the anchor or as its positive.

    Candidates are sorted by id once, so that copies of a text are neighbours. Their logits are
    listed a million at a time, so that memory is bounded even if all texts are equal.

    Attributes:
        most_cells: The number of logits that are listed at a time.

    Args:
        queries: The ids of one or two texts of each anchor, each (R,) int64.
        candidates: (c,) int64 ids.
        columns: (c,) int64, the positions of these candidates among all N.
    """

    most_cells: ClassVar[int] = 1 << 20

    def __init__(self, queries: list[Tensor], candidates: Tensor, columns: Tensor):
        ids, order = candidates.sort()
        self.columns = columns[order]
        both = torch.stack(queries, dim=1)
        self.texts = both.shape[1]
        first = torch.searchsorted(ids, both)
        count = torch.searchsorted(ids, both, right=True) - first
        if self.texts == 2:
            # An anchor with the same text as its positive would list each logit twice.
            count[:, 1].masked_fill_(both[:, 0] == both[:, 1], 0)
        self.first, self.count = first.flatten(), count.flatten()
        self.total = int(self.count.sum())

    def __call__(self, strip: Tensor, start: int) -> None:
        """Change the strip in place; see :data:`LogitChange`."""
        stop = start + strip.shape[1]
        for anchors, candidates in self._cells(start * self.texts, stop * self.texts):
            strip[candidates, anchors - start] = -torch.inf

    def _cells(self, begin: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield anchors and candidates of the queries ``begin`` to ``end``."""
        count = self.count[begin:end]
        total = int(count.sum())
        if total == 0:
            return
        if total > self.most_cells and end - begin > 1:
            middle = (begin + end) // 2
            yield from self._cells(begin, middle)
            yield from self._cells(middle, end)
            return
        stretch = torch.repeat_interleave(count)
        inside = torch.arange(total, device=count.device) - (count.cumsum(0) - count)[stretch]
        candidates = self.columns[self.first[begin:end][stretch] + inside]
        yield (stretch + begin) // self.texts, candidates


def _exclude_same_text(queries: list[Tensor], candidates: list[tuple[Tensor, int]]) -> LogitChange:
    """Exclude what :class:`SameText` excludes, by comparing all ids of a strip.

    An accelerator would have to tell the host the number of equal texts before it could list them.
    """

    def change(strip: Tensor, start: int) -> None:
        here = slice(start, start + strip.shape[1])
        for ids, column in candidates:
            same, *others = (ids.unsqueeze(1) == texts[here] for texts in queries)
            for other in others:
                same |= other
            strip[column : column + len(ids)].masked_fill_(same, -torch.inf)

    return change


def exclude_false_negatives(guide: Guide, candidates: Tensor) -> LogitChange:
    """Exclude the false negatives that a guide finds.

    Args:
        guide: The embeddings of the guide.
        candidates: (c, g), its embeddings of the first c candidates of the loss.
    """
    anchors = unit_rows(guide.anchors.detach())
    candidates = unit_rows(candidates.detach())
    limits = guide.limits()

    def change(strip: Tensor, start: int) -> None:
        here = slice(start, start + strip.shape[1])
        close = candidates @ anchors[here].T > limits[here]
        strip[: len(close)].masked_fill_(close, -torch.inf)

    return change


def same_text_changes(
    queries: list[Tensor | None], candidates: list[tuple[Tensor | None, int]], expected: int
) -> list[LogitChange]:
    """Build the exclusion of equal texts; an empty list if no text is known to occur twice.

    Args:
        queries: The ids of the texts of each anchor, (R,) each; None is not compared.
        candidates: Pairs of ids, (c,) each, and the position of the first of these candidates
            among all N; candidates without ids are not compared.
        expected: The number of logits with equal texts in any batch, such as the positives.
    """
    asked = [ids for ids in queries if ids is not None]
    known = [(ids, column) for ids, column in candidates if ids is not None]
    if not asked or not known:
        return []
    compared = [*asked, *(ids for ids, _ in known)]
    hosts = [host for ids in compared if (host := known_on_host(ids)) is not None]
    if len(hosts) == len(compared):
        columns = [torch.arange(column, column + len(ids)) for ids, column in known]
        change = SameText(hosts[: len(asked)], torch.cat(hosts[len(asked) :]), torch.cat(columns))
        if change.total <= expected:
            return []
        if reads_are_free(known[0][0].device):
            return [change]
    return [_exclude_same_text(asked, known)]
