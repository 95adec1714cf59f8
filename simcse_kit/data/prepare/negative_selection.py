"""Which neighbours of an anchor are its hard negatives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from simcse_kit.errors import ConfigError

__all__ = ["Mining", "choose", "parse_ranks"]


@dataclass(frozen=True, slots=True)
class Mining:
    """Which neighbours of an anchor are taken.

    Args:
        negatives: most hard negatives of a row.
        ranks: first and last rank that is looked at, from 1; the anchor itself and its positives
            have no rank.
        factor: a neighbour that scores above the positive's score times this is taken for a
            missed positive (2407.15831 keeps 0.95).
        margin: a neighbour must score lower than the positive by this much, too.
        min_score: neighbours below this are no hard negatives,
        max_score: nor are those above this, whatever the positive's score.
        pick: the ``hardest`` of what is left, or ``random`` ones.
        hard_positives: of an anchor with several positives keep the row with the least similar.
        positive_score: of single texts the positive is the least similar neighbour that scores at
            least so much;
        positive_rank: and has at most this rank.
        search: ``exact``, or ``faiss``, which is approximate.
        seed: of random picks.
    """

    negatives: int = 1
    ranks: tuple[int, int] = (1, 50)
    factor: float = 0.95
    margin: float = 0.0
    min_score: float = -1.0
    max_score: float = 1.0
    pick: Literal["hardest", "random"] = "hardest"
    hard_positives: bool = False
    positive_score: float = 0.8
    positive_rank: int = 5
    search: Literal["exact", "faiss"] = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        first, last = self.ranks
        for name, good, allowed in (
            ("negatives", self.negatives >= 1, "1 or more"),
            ("ranks", 1 <= first <= last, "1 <= first <= last"),
            ("factor", 0 < self.factor <= 1, "0 < factor <= 1"),
            ("margin", 0 <= self.margin < 2, "0 <= margin < 2"),
            ("min_score", -1 <= self.min_score < 1, "-1 <= score < 1"),
            ("max_score", self.min_score < self.max_score <= 1, "min_score < score <= 1"),
            ("pick", self.pick in ("hardest", "random"), "hardest, random"),
            ("positive_score", -1 <= self.positive_score <= 1, "-1 to 1"),
            ("positive_rank", self.positive_rank >= 1, "1 or more"),
            ("search", self.search in ("exact", "faiss"), "exact, faiss"),
        ):
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; allowed: {allowed}")
        if last - first + 1 < self.negatives:
            raise ConfigError(
                f"ranks {first}:{last} hold fewer than the {self.negatives} negatives of a row; "
                "widen the window"
            )


def parse_ranks(text: str) -> tuple[int, int]:
    """``"10:50"`` as (10, 50).

    Raises:
        ConfigError: it is not written so.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.strip().isdecimal() and last.strip().isdecimal()):
        raise ConfigError(f"ranks {text!r}: give the first and the last, such as 10:50")
    return int(first), int(last)


def choose(
    ranked: Sequence[tuple[int, float]],
    positive: float,
    mining: Mining,
    rng: random.Random,
    counts: dict[str, Any],
) -> list[tuple[int, float]]:
    """The hard negatives among the ranked neighbours of one anchor.

    Args:
        ranked: (text, score) of neighbours that are no known positives, best first.
        positive: score of the anchor's positive.
        mining: what is taken.
        rng: draws random picks.
        counts: neighbours that were passed over, by why.
    """
    first, last = mining.ranks
    # Times the factor, but towards lower scores also where the positive's is negative.
    limit = min(positive - (1 - mining.factor) * abs(positive), positive - mining.margin)
    fit = []
    for text, score in ranked[first - 1 : last]:
        if score > limit:
            passed = "neighbours too near to the positive's score"
        elif score > mining.max_score:
            passed = "neighbours above --max-score"
        elif score < mining.min_score:
            passed = "neighbours below --min-score"
        else:
            fit.append((text, score))
            if mining.pick == "hardest" and len(fit) == mining.negatives:
                break
            continue
        counts[passed] = counts.get(passed, 0) + 1
    if mining.pick == "random" and len(fit) > mining.negatives:
        fit = [fit[place] for place in sorted(rng.sample(range(len(fit)), mining.negatives))]
    return fit
