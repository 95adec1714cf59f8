"""Neighbours of anchors by cosine similarity, and the choice of hard negatives among them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError
from simcse_kit.metrics.search import Found, approximate_top_k, top_k
from simcse_kit.utils.prompt_choice import DEFAULT_PROMPTS, PromptChoice

__all__ = ["Mining", "Ranking", "choose", "parse_ranks"]

# Number of queries on which the recall of an approximate search is measured.
_RECALL_ON = 200


@dataclass(frozen=True, slots=True)
class Mining:
    """Rules for mining hard negatives.

    Args:
        negatives: Largest number of hard negatives in a row.
        ranks: First and last rank of candidates, from 1. The anchor itself and its positives have
            no rank.
        factor: Largest score of a negative as a share of the positive's score; neighbours above it
            are likely to be unlabelled positives. Source: NV-Retriever, arXiv 2407.15831, which
            uses 0.95.
        margin: Smallest difference between the scores of the positive and of a negative.
        min_score: Lowest score of a negative.
        max_score: Highest score of a negative.
        pick: Whether the ``hardest`` or ``random`` neighbours are chosen from those left.
        hard_positives: Whether only the least similar positive of an anchor is kept.
        positive_score: Lowest score of the positive of a single text. The positive is the least
            similar neighbour with this score and rank.
        positive_rank: Last rank of the positive of a single text.
        search: ``exact``, or ``faiss``, which is approximate.
        seed: Seed of random picks.
        nearest: Function of an exact search, with the arguments and results of
            :func:`~simcse_kit.metrics.search.top_k`.
        prompts: Prompts in place of those of the encoder. Of pairs, the anchors are queries and the
            candidates documents; single texts are neither.

    Raises:
        ConfigError: A value is not allowed.
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
    prompts: PromptChoice = DEFAULT_PROMPTS
    nearest: Callable[..., Found] = top_k

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
                "give a wider range"
            )


def parse_ranks(text: str) -> tuple[int, int]:
    """Parse ranks such as ``"10:50"``.

    Raises:
        ConfigError: The text has another form.

    Examples:
        >>> parse_ranks("10:50")
        (10, 50)
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
    """Choose the hard negatives among the ranked neighbours of one anchor.

    Args:
        ranked: (text number, score) of neighbours that are not known positives, best first.
        positive: Score of the anchor's positive.
        mining: Rules for mining.
        rng: Random generator of random picks.
        counts: Number of rejected neighbours by reason, which is updated.

    Returns:
        (text number, score) of at most ``mining.negatives`` neighbours, best first.

    Examples:
        >>> ranked = [(7, 0.89), (4, 0.7), (2, 0.3)]
        >>> choose(ranked, 0.9, Mining(), random.Random(0), {})
        [(4, 0.7)]
    """
    first, last = mining.ranks
    # The factor lowers the limit also if the positive's score is negative.
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


class Ranking:
    """Nearest keys of queries, searched again only where more are needed than found so far.

    Args:
        queries: ``(n, d)`` unit vectors.
        keys: ``(m, d)`` unit vectors.
        mining: Rules, of which ``search`` and ``nearest`` are used.
        figures: Dict that receives the recall of an approximate search.
        progress: Whether to show a progress bar on a terminal.
        gpu: GPU for an exact search; None for the CPU.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        *,
        mining: Mining,
        figures: dict[str, Any],
        progress: bool = False,
        gpu: torch.device | None = None,
    ):
        self._gpu = gpu
        self._queries = queries
        self._keys = keys
        self._approximate = mining.search == "faiss"
        self._nearest = mining.nearest
        self._figures = figures
        self._progress = progress
        self._found: dict[int, Found] = {}

    def search(self, depths: Mapping[int, int]) -> None:
        """Find the nearest keys of some queries.

        Args:
            depths: Smallest number of keys to find, by number of the query. An approximate search
                runs once, for all queries, with the largest of these numbers.
        """
        most = len(self._keys)
        short = {
            number: min(most, depth)
            for number, depth in depths.items()
            if number not in self._found or len(self._found[number][1]) < min(most, depth)
        }
        if self._approximate:
            if not self._found and short:
                self._approximated(max(short.values()))
            return
        # A query with thousands of positives must not lengthen the lists of all others.
        alike: dict[int, list[int]] = defaultdict(list)
        for number, depth in short.items():
            alike[depth.bit_length()].append(number)
        for members in alike.values():
            k = max(short[number] for number in members)
            scores, places = self._nearest(
                self._queries[members], self._keys, k, progress=self._progress, gpu=self._gpu
            )
            for at, number in enumerate(members):
                self._found[number] = scores[at], places[at]

    def best(self, number: int) -> list[tuple[int, float]]:
        """Return (key, score) of the nearest keys of a query, nearest first."""
        scores, places = (part.tolist() for part in self._found[number])
        return [(key, score) for key, score in zip(places, scores, strict=True) if key >= 0]

    def score(self, query: int, key: int) -> float:
        """Compute the cosine similarity of a query and a key."""
        return float(self._queries[query] @ self._keys[key])

    def _approximated(self, k: int) -> None:
        scores, places = approximate_top_k(self._queries, self._keys, k)
        count = len(self._queries)
        some = np.linspace(0, count - 1, min(_RECALL_ON, count)).astype(np.int64)
        _, exact = top_k(self._queries[some], self._keys, k, gpu=self._gpu)
        shared = [len(np.intersect1d(*each)) for each in zip(exact, places[some], strict=True)]
        name = f"recall of the search on {len(some)} anchors"
        self._figures[name] = float(np.mean(shared) / k)
        self._found = {number: (scores[number], places[number]) for number in range(count)}
