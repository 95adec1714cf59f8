"""The shape of the embedding space while it is trained, on a fixed probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from simcse_kit.data.readers import Example, Kind
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.evaluation.geometry import positives
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.metrics.collapse import spread_of
from simcse_kit.metrics.geometry import alignment, uniformity

__all__ = ["PREFIX", "Probe"]

PREFIX = "trace_"
"""What the names of the trace begin with in metrics.jsonl."""

# An encoder can lie badly only in ways that so many sentences show; more would cost time.
_SENTENCES, _PAIRS = 128, 64
# Kinds of data whose first two texts are meant to be near each other.
_PAIRED: tuple[Kind, ...] = ("pairs", "triplets", "documents")

T = TypeVar("T")


@dataclass(frozen=True)
class Probe:
    """Texts that stay the same over the whole training, as in figure 2 of arXiv 2104.08821.

    Args:
        sentences: distinct ones, 2 or more, for uniformity, spread and rank.
        anchors: for the alignment.
        positives: of the anchors; None: each anchor is its own, under two dropout masks.
        seed: of those masks.
        max_length: tokens of a sentence.
    """

    sentences: list[str]
    anchors: list[str]
    positives: list[str] | None
    seed: int
    max_length: int

    @classmethod
    def of_pairs(cls, pairs: PairSet, seed: int, max_length: int) -> Probe | None:
        """A probe of graded pairs: the alignment is over those that count as positives."""
        chosen = _some([int(at) for at in positives(pairs).nonzero()[0]], _PAIRS)
        return _probe(
            cls(
                sentences=_some(pairs.sentences(), _SENTENCES),
                anchors=[pairs.sentences1[at] for at in chosen],
                positives=[pairs.sentences2[at] for at in chosen],
                seed=seed,
                max_length=max_length,
            )
        )

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[Example],
        kind: Kind,
        seed: int,
        max_length: int,
        *,
        sentences: int = _SENTENCES,
        pairs: int = _PAIRS,
    ) -> Probe | None:
        """A probe of rows that training does not see, of at most so many sentences and pairs; None
        where they are too few."""
        chosen = _some([row.texts for row in rows], pairs)
        return _probe(
            cls(
                sentences=_some(list(dict.fromkeys(row.texts[0] for row in rows)), sentences),
                anchors=[texts[0] for texts in chosen],
                positives=[texts[1] for texts in chosen] if kind in _PAIRED else None,
                seed=seed,
                max_length=max_length,
            )
        )

    def measure(self, encoder: SentenceEncoder) -> dict[str, float]:
        """Measure an encoder; the random numbers of the training are left as they are.

        Returns:
            ``trace_alignment`` (left out where there is no positive), ``trace_uniformity``,
            ``trace_spread`` (per-dimension standard deviation of the unit vectors, times √d),
            ``trace_mean_cosine`` and ``trace_effective_rank``. Nothing where a vector is zero or
            not finite, which the loss tells of.
        """
        cloud = self._encode(encoder, self.sentences)
        # A method may train an encoder without dropout; both passes are then one and the same.
        if self.positives is None:
            left, right = self._twice(encoder)
        else:
            left, right = (self._encode(encoder, side) for side in (self.anchors, self.positives))
        parts = [cloud, left, right]
        if not all(bool(part.isfinite().all() and part.any(dim=1).all()) for part in parts):
            return {}
        found = {"uniformity": float(uniformity(cloud))}
        if len(left):
            found["alignment"] = float(alignment(left, right))
        return {PREFIX + name: value for name, value in (found | vars(spread_of(cloud))).items()}

    def _encode(self, encoder: SentenceEncoder, texts: list[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, encoder.embedding_dim)
        return encoder.encode(texts, to="torch", max_length=self.max_length).float().cpu()

    @torch.no_grad()
    def _twice(self, encoder: SentenceEncoder) -> tuple[Tensor, Tensor]:
        rows, _ = encoder.tokenize(self.anchors, max_length=self.max_length)
        ids = pad_sequence(
            [torch.tensor(row) for row in rows],
            batch_first=True,
            padding_value=encoder.tokenizer.pad_token_id,
        ).to(encoder.device)
        lengths = torch.tensor([len(row) for row in rows], device=encoder.device)
        mask = (torch.arange(ids.shape[1], device=encoder.device) < lengths[:, None]).long()
        was_training = encoder.training
        encoder.train()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            left, right = (encoder(ids, mask).float().cpu() for _ in range(2))
        encoder.train(was_training)
        return left, right


def _probe(probe: Probe) -> Probe | None:
    return probe if len(probe.sentences) > 1 else None


def _some(items: list[T], most: int) -> list[T]:
    """At most so many, at equal distances."""
    return items[:: max(1, math.ceil(len(items) / most))]
