"""Graded sentence pairs in memory, whatever file they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.errors import DataError

__all__ = ["PairSet", "concatenate", "observed_scale"]


@dataclass(frozen=True, eq=False)
class PairSet:
    """Sentence pairs with a gold score each: a subset of a task, or a whole set.

    Args:
        name: subset or file name.
        sentences1: n first sentences, white space collapsed to single blanks.
        sentences2: n second sentences.
        gold: (n,) float64 scores on ``scale``.
        scale: lowest and highest score that an annotator could give.
    """

    name: str
    sentences1: list[str]
    sentences2: list[str]
    gold: np.ndarray
    scale: tuple[float, float] = (0.0, 5.0)

    def __post_init__(self) -> None:
        for side in ("sentences1", "sentences2"):
            object.__setattr__(self, side, checked_texts(getattr(self, side)))
        if not len(self.sentences1) == len(self.sentences2) == len(self.gold):
            raise DataError(
                f"{self.name}: {len(self.sentences1)} first sentences, {len(self.sentences2)} "
                f"second sentences and {len(self.gold)} scores; the three must be equal"
            )

    def __len__(self) -> int:
        return len(self.gold)

    def sentences(self) -> list[str]:
        """The distinct sentences of both sides, in order of first appearance."""
        return list(dict.fromkeys([*self.sentences1, *self.sentences2]))


def concatenate(sets: Sequence[PairSet], name: str) -> PairSet:
    """All pairs of ``sets`` in order, as one set; ``sets`` must share a scale and not be empty."""
    return PairSet(
        name=name,
        sentences1=[text for part in sets for text in part.sentences1],
        sentences2=[text for part in sets for text in part.sentences2],
        gold=np.concatenate([part.gold for part in sets]),
        scale=sets[0].scale,
    )


def observed_scale(gold: np.ndarray) -> tuple[float, float]:
    """The scale to assume for scores whose scale nobody stated.

    0 to 5 where the highest score is above 4 and at most 5, 0 to 1 where it is above 0.8 and at
    most 1 (no score below 0 in both cases); otherwise the lowest and highest score seen.
    """
    low, high = float(gold.min()), float(gold.max())
    for top in (1.0, 5.0):
        if low >= 0 and 0.8 * top < high <= top:
            return (0.0, top)
    return (low, high)
