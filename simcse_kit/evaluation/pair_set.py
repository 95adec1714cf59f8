"""Graded sentence pairs in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simcse_kit.data.graded import graded_columns_among
from simcse_kit.data.in_memory import is_table, table_rows
from simcse_kit.encoder.inputs import checked_texts, shown
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.metrics.correlation import paired_cosine
from simcse_kit.utils.settings import lowest_and_highest

__all__ = ["PairSet", "as_pair_set", "concatenate", "observed_scale", "read_scale"]

COLUMNS = ("sentence1", "sentence2", "score")
_LEAST_PAIRS = 3


@dataclass(frozen=True, eq=False)
class PairSet:
    """Sentence pairs with a gold score each: a subset of a task, or a whole set.

    Args:
        name: name of the subset or file.
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
        """List the distinct sentences of both sides, in order of first appearance."""
        return list(dict.fromkeys([*self.sentences1, *self.sentences2]))

    def cosines(self, vectors: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        """Compute the cosine of each pair: (n,) float64.

        Args:
            vectors: function from m sentences to their (m, d) vectors.
        """
        return paired_cosine(vectors(self.sentences1), vectors(self.sentences2))


def as_pair_set(
    pairs: PairSet | Iterable[Any],
    name: str = "pairs",
    scale: tuple[float, float] | None = None,
) -> PairSet:
    """Make a set of graded pairs from rows in memory.

    Args:
        pairs: at least 3 tuples (sentence1, sentence2, score); or mappings with these three keys,
            such as the rows of a ``datasets.Dataset``; or a table such as a pandas DataFrame with
            these columns. Other names of the columns are those of
            :func:`~simcse_kit.data.graded.graded_columns_among`. A :class:`PairSet` is returned
            unchanged.
        name: name of the set.
        scale: lowest and highest score that a pair could have; None infers it from the scores, see
            :func:`observed_scale`.

    Raises:
        DataError: a row is not a graded pair, a sentence is blank, a score is not a finite number
            or outside ``scale``, or there are fewer than 3 pairs.

    Examples:
        >>> rows = [("a cat", "the cat", 4.5), ("a cat", "a dog", 2.0), ("a cat", "rain", 0.0)]
        >>> as_pair_set(rows).scale
        (0.0, 5.0)
    """
    if isinstance(pairs, PairSet):
        return pairs
    first: list[str] = []
    second: list[str] = []
    gold: list[float] = []
    columns: tuple[str, ...] = ()
    for number, row in enumerate(table_rows(pairs) if is_table(pairs) else pairs, start=1):
        where = f"{name}: pair {number}"
        if isinstance(row, Mapping):
            columns = columns or graded_columns_among(list(row)) or COLUMNS
            row = [row[column] for column in columns] if set(columns) <= row.keys() else row
        if not isinstance(row, list | tuple) or len(row) != len(COLUMNS):
            raise DataError(
                f"{where} is {shown(row)}; give tuples (sentence1, sentence2, score), or rows with "
                "the columns sentence1, sentence2 and score"
            )
        one, two = checked_texts(row[:2])
        for sentences, text, column in ((first, one, COLUMNS[0]), (second, two, COLUMNS[1])):
            sentences.append(" ".join(text.split()))
            if not sentences[-1]:
                raise DataError(f"{where}: {column} is blank; fill it or drop the pair")
        gold.append(_score(row[2], where))
        if scale is not None and not scale[0] <= gold[-1] <= scale[1]:
            raise DataError(
                f"{where}: score {gold[-1]:g} is outside the scale of {scale[0]:g} to {scale[1]:g}"
            )
    if len(gold) < _LEAST_PAIRS:
        raise DataError(f"{name}: {len(gold)} pairs; a correlation needs {_LEAST_PAIRS} or more")
    scores = np.array(gold, dtype=np.float64)
    return PairSet(name, first, second, scores, scale or observed_scale(scores))


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{where}: score {shown(value)} is not a finite number")
    return score


def concatenate(sets: Sequence[PairSet], name: str) -> PairSet:
    """Join sets in order. There is at least one set, and all have the same scale."""
    return PairSet(
        name=name,
        sentences1=[text for part in sets for text in part.sentences1],
        sentences2=[text for part in sets for text in part.sentences2],
        gold=np.concatenate([part.gold for part in sets]),
        scale=sets[0].scale,
    )


def read_scale(value: Sequence[float] | str | None) -> tuple[float, float] | None:
    """Read the scale of scores from two numbers or from a text such as ``0,5``; None stays None.

    Raises:
        ConfigError: the value is not the lowest and the highest score.
    """
    try:
        return None if value is None else lowest_and_highest(value)
    except ValueError as error:
        raise ConfigError(f"scale is {shown(value)}; it {error}") from None


def observed_scale(gold: np.ndarray) -> tuple[float, float]:
    """Guess the scale of scores.

    The scale is 0 to 5 if the highest score is above 4 and at most 5, and 0 to 1 if it is above 0.8
    and at most 1 (without negative scores in both cases). Otherwise it is the observed range.
    """
    low, high = float(gold.min()), float(gold.max())
    for top in (1.0, 5.0):
        if low >= 0 and 0.8 * top < high <= top:
            return (0.0, top)
    return (low, high)
