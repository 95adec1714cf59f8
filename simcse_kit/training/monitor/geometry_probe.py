"""Geometry of the embedding space during training, measured on a fixed sample of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from simcse_kit.data.readers import Example, Kind
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.evaluation.geometry import positives
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.methods.common.heads import project_batch
from simcse_kit.metrics.collapse import spread_of
from simcse_kit.metrics.geometry import alignment, uniformity

__all__ = ["PREFIX", "PROJECTION", "Probe"]

PREFIX = "trace_"
"""Prefix of the measurements in metrics.jsonl."""
PROJECTION = "projection_"
"""Further prefix of the measurements of a projector's output."""

# A small sample is enough to see collapse; more would slow training.
_SENTENCES, _PAIRS = 128, 64
# Kinds of data whose first two texts are similar in meaning.
_PAIRED: tuple[Kind, ...] = ("pairs", "triplets", "documents")

T = TypeVar("T")


@dataclass(frozen=True)
class Probe:
    """A sample of texts that stays the same during training, as in figure 2 of arXiv 2104.08821.

    Args:
        sentences: 2 or more distinct sentences, for uniformity, spread and rank.
        anchors: first texts of the pairs, for the alignment.
        positives: second texts of the pairs; None pairs each anchor with itself under two dropout
            masks.
        seed: seed of these masks.
        max_length: maximum number of tokens of a sentence.
        prompts: texts in front of the sentences and anchors, and of the positives; None for the
            default prompt of the encoder.
    """

    sentences: list[str]
    anchors: list[str]
    positives: list[str] | None
    seed: int
    max_length: int
    prompts: tuple[str | None, ...] = (None, None)

    @classmethod
    def of_pairs(cls, pairs: PairSet, seed: int, max_length: int) -> Probe | None:
        """Sample graded pairs; the alignment is over those with a high grade.

        Returns None if there are fewer than 2 sentences.
        """
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
        """Sample held-out rows: at most this many sentences and pairs.

        Returns None if there are fewer than 2 sentences.
        """
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

    def measure(self, encoder: SentenceEncoder, head: nn.Module | None = None) -> dict[str, float]:
        """Measure an encoder, without any effect on the random numbers of the training.

        Args:
            encoder: the encoder in training.
            head: a projector whose outputs are measured too; None for no projector.

        Returns:
            ``trace_alignment`` (absent if there is no pair), ``trace_uniformity``,
            ``trace_spread`` (standard deviation of the unit vectors, averaged over the dimensions,
            times √d), ``trace_mean_cosine`` and ``trace_effective_rank``; the last three of the
            projections with the prefix ``trace_projection_``. Empty if a vector is zero or not
            finite.
        """
        cloud = self._encode(encoder, self.sentences)
        # A method may train an encoder without dropout; both passes are then equal.
        if self.positives is None:
            left, right = self._twice(encoder)
        else:
            left = self._encode(encoder, self.anchors)
            right = self._encode(encoder, self.positives, prompt=self.prompts[1])
        parts = [cloud, left, right]
        if not all(bool(part.isfinite().all() and part.any(dim=1).all()) for part in parts):
            return {}
        found = {"uniformity": float(uniformity(cloud))}
        if len(left):
            found["alignment"] = float(alignment(left, right))
        found |= vars(spread_of(cloud))
        if head is not None:
            raw = self._encode(encoder, self.sentences, normalize=False)
            projections = project_batch(head, raw).float().cpu()
            if projections.isfinite().all():
                spread = vars(spread_of(projections))
                found |= {PROJECTION + name: value for name, value in spread.items()}
        return {PREFIX + name: value for name, value in found.items()}

    def _encode(
        self,
        encoder: SentenceEncoder,
        texts: list[str],
        normalize: bool | None = None,
        prompt: str | None = None,
    ) -> Tensor:
        if not texts:
            return torch.zeros(0, encoder.embedding_dim)
        vectors = encoder.encode(
            texts,
            to="torch",
            max_length=self.max_length,
            normalize=normalize,
            prompt=self.prompts[0] if prompt is None else prompt,
        )
        return vectors.float().cpu()

    @torch.no_grad()
    def _twice(self, encoder: SentenceEncoder) -> tuple[Tensor, Tensor]:
        rows, _ = encoder.tokenize(self.anchors, max_length=self.max_length, prompt=self.prompts[0])
        ids = pad_sequence(
            [torch.tensor(row) for row in rows],
            batch_first=True,
            padding_value=encoder.tokenizer.pad_token_id,
        ).to(encoder.device)
        lengths = torch.tensor([len(row) for row in rows], device=encoder.device)
        mask = (torch.arange(ids.shape[1], device=encoder.device) < lengths[:, None]).long()
        was_training = encoder.training
        encoder.train()
        # Of several GPUs, only that of the encoder draws here.
        with torch.random.fork_rng([encoder.device] if encoder.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            left, right = (encoder(ids, mask).float().cpu() for _ in range(2))
        encoder.train(was_training)
        return left, right


def _probe(probe: Probe) -> Probe | None:
    return probe if len(probe.sentences) > 1 else None


def _some(items: list[T], most: int) -> list[T]:
    """Take at most this many items, at equal distances."""
    return items[:: max(1, math.ceil(len(items) / most))]
