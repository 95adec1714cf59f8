"""A second model that says which in-batch negatives are none (GISTEmbed, arXiv 2402.16829)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows

__all__ = ["Guide", "GuidedCandidates"]


@dataclass(frozen=True)
class Guide:
    """Embeddings of a batch by a guide model; no gradient flows to them.

    A candidate c is left out of anchor i's denominator where
    ``cos(g_i, g_c) > cos(g_i, g_i+) - margin``: the guide finds it closer to the anchor than the
    anchor's positive is. The true positive always stays.

    Args:
        anchors: (B, g); g need not be the width of the trained encoder.
        positives: (B, g).
        hard_negatives: (B, k, g), or None; hard negatives without them are not looked at.
        margin: 0 in the paper. Above 0, candidates nearly as close as the positive go too; below
            0, only those much closer go.
    """

    anchors: Tensor
    positives: Tensor
    hard_negatives: Tensor | None = None
    margin: float = 0.0

    def limits(self) -> Tensor:
        """(B,): the highest cosine with anchor i that a negative may have."""
        with full_precision(self.anchors.device), torch.no_grad():
            own = (unit_rows(self.anchors) * unit_rows(self.positives)).sum(dim=1)
        return own - self.margin

    def too_close(self, candidates: Tensor) -> Tensor:
        """(B, N) bool for (N, g) candidates: which of them are no negatives of anchor i."""
        with torch.no_grad():
            return cosine_matrix(self.anchors, candidates) > self.limits().unsqueeze(1)

    def reversed(self) -> Guide:
        """From the positives to the anchors, without hard negatives."""
        return Guide(self.positives, self.anchors, margin=self.margin)

    def both_views(self) -> Guide:
        """Anchors and positives as anchors, each with the other as its positive."""
        both, turned = (
            torch.cat(pair)
            for pair in ((self.anchors, self.positives), (self.positives, self.anchors))
        )
        return Guide(both, turned, margin=self.margin)


class GuidedCandidates:
    """The same for the strips of
    :mod:`~simcse_kit.losses.info_nce_chunked`, without a (B, N) matrix.

    Args:
        guide: the embeddings.
        candidates: (c, g), those of the first c candidates of the loss.
    """

    def __init__(self, guide: Guide, candidates: Tensor):
        self.anchors = unit_rows(guide.anchors.detach())
        self.candidates = unit_rows(candidates.detach())
        self.limits = guide.limits()

    def apply(self, strip: Tensor, start: int) -> None:
        """Alter the strip; see :class:`simcse_kit.losses.chunk_masks.CellChange`."""
        here = slice(start, start + strip.shape[1])
        close = self.candidates @ self.anchors[here].T > self.limits[here]
        strip[: len(close)].masked_fill_(close, -torch.inf)
