"""Watch over the methods that nothing but their construction keeps from collapse."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from simcse_kit.metrics.collapse import Spread, collapse_of, spread_of

__all__ = ["CollapseWatch"]

logger = logging.getLogger(__name__)

# A batch may be odd by chance; this many in a row are not.
_PATIENCE = 5
# What is watched, and the prefix of its numbers in the log.
_PARTS = {"embeddings": "", "projections": "projection_"}


class CollapseWatch(nn.Module):
    """Measures the vectors of every training batch, and warns once when they collapse.

    Both the encoder's vectors and their projections are measured. BatchNorm in a projector keeps
    the projections from becoming one point, so that they collapse to a single direction, and the
    encoder's vectors lag behind.

    What it compares with is the first batch; that is a buffer, so that a resumed run compares with
    the same. Held-out rows, which come without gradients, are measured but not judged.

    Args:
        name: of the method, for the message.
        remedy: what to try, for the message.
    """

    start: Tensor

    def __init__(self, name: str, remedy: str):
        super().__init__()
        self._name, self._remedy = name, remedy
        self._in_a_row = dict.fromkeys(_PARTS, 0)
        self._warned: set[str] = set()
        self.register_buffer("start", torch.full((len(_PARTS), 3), torch.nan, dtype=torch.float64))

    def forward(self, embeddings: Tensor, projections: Tensor) -> dict[str, float | Tensor]:
        """Measure one view of a batch.

        Args:
            embeddings: (B, d), by the encoder.
            projections: (B, p), what is made of them for the loss.

        Returns:
            What to log: ``spread``, ``mean_cosine`` and ``effective_rank`` of the embeddings, and
            of the projections with the prefix ``projection_``. Nothing where a number is not
            finite, which the loss tells of.
        """
        parts = [embeddings.detach(), projections.detach()]
        if not all(bool(part.isfinite().all()) for part in parts):
            return {}
        spreads = dict(zip(_PARTS, map(spread_of, parts), strict=True))
        if self.training and torch.is_grad_enabled():
            self._judge(spreads)
        return {
            _PARTS[part] + name: number
            for part, spread in spreads.items()
            for name, number in vars(spread).items()
        }

    def _judge(self, spreads: dict[str, Spread]) -> None:
        if self.start.isnan().any():
            self.start.copy_(torch.tensor([list(vars(s).values()) for s in spreads.values()]))
        for (part, now), first in zip(spreads.items(), self.start.tolist(), strict=True):
            start = Spread(*first)
            kind = collapse_of(now, start)
            self._in_a_row[part] = 0 if kind is None else self._in_a_row[part] + 1
            if self._in_a_row[part] < _PATIENCE or part in self._warned:
                continue
            self._warned.add(part)
            logger.warning(
                "%s collapse of the %s of method %r: %s (%s at the start); %s, or use a method "
                "with negatives, such as simcse",
                kind,
                part,
                self._name,
                now,
                start,
                self._remedy,
            )
