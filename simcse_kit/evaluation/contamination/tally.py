"""Counts of evaluation sentences found in training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simcse_kit.evaluation.contamination.index import KINDS, Hit, LeakIndex
from simcse_kit.evaluation.pair_set import PairSet

__all__ = ["SetLeak", "Tally"]


@dataclass(frozen=True)
class SetLeak:
    """What training text contains of one evaluation set.

    Attributes:
        sentences: number of distinct sentences of the set.
        matched: number of them that were found, by the strictest kind of match.
        pairs: number of graded pairs of the set.
        touched: number of pairs with a sentence that was found.
        whole: number of pairs whose two sentences were found.
        in_one_row: number of pairs whose two sentences were found in the same training row.
    """

    sentences: int
    matched: dict[str, int]
    pairs: int
    touched: int
    whole: int
    in_one_row: int


class Tally:
    """Counts of matches over training rows."""

    def __init__(self, sets: Mapping[str, Sequence[PairSet]], index: LeakIndex):
        self._index = index
        self._sets = sets
        self._kind: dict[int, str] = {}
        # Pairs of sentence numbers that occur in the same training row.
        self._together: set[tuple[int, int]] = set()
        self._number = {text: number for number, text in enumerate(index.sentences)}
        self.matched_rows = 0

    def add(self, hits: Sequence[Sequence[Hit]]) -> None:
        """Count a training row by the matches of each of its texts."""
        if not any(hits):
            return
        self.matched_rows += 1
        for hit in (hit for each in hits for hit in each):
            known = self._kind.get(hit.sentence)
            if known is None or KINDS.index(hit.kind) < KINDS.index(known):
                self._kind[hit.sentence] = hit.kind
        for at, first in enumerate(hits):
            for second in hits[at + 1 :]:
                self._together.update(
                    (min(a.sentence, b.sentence), max(a.sentence, b.sentence))
                    for a in first
                    for b in second
                )

    def leaks(self) -> dict[str, SetLeak]:
        """Return the counts of each evaluation set."""
        return {name: self._leak(name, parts) for name, parts in self._sets.items()}

    def found(self) -> dict[str, list[str]]:
        """Return the sentences of each evaluation set that were found."""
        return {
            name: [self._index.sentences[n] for n in sorted(numbers) if n in self._kind]
            for name, numbers in self._index.sets.items()
        }

    def _leak(self, name: str, parts: Sequence[PairSet]) -> SetLeak:
        numbers = self._index.sets[name]
        kinds = Counter(self._kind[number] for number in numbers if number in self._kind)
        pairs = [
            (self._number[one], self._number[two])
            for part in parts
            for one, two in zip(part.sentences1, part.sentences2, strict=True)
        ]
        return SetLeak(
            sentences=len(numbers),
            matched={kind: kinds[kind] for kind in KINDS},
            pairs=len(pairs),
            touched=sum(one in self._kind or two in self._kind for one, two in pairs),
            whole=sum(one in self._kind and two in self._kind for one, two in pairs),
            in_one_row=sum((min(pair), max(pair)) in self._together for pair in pairs),
        )
