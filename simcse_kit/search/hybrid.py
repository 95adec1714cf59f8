"""Hybrid search: BM25 and cosine similarity, joined by reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import MissingExtraError
from simcse_kit.search.texts import Texts

__all__ = ["Lexical", "reciprocal_rank_fusion", "require_hybrid"]

RANK_CONSTANT = 60
"""Constant of reciprocal rank fusion, as in the paper."""

# Words of any language; the default of bm25s leaves out words of one letter.
_WORDS = r"(?u)\b\w+\b"


def require_hybrid() -> None:
    """Check that bm25s is installed.

    Raises:
        MissingExtraError: It is missing.
    """
    if find_spec("bm25s") is None:
        raise MissingExtraError("hybrid search", "hybrid")


class Lexical:
    """BM25 ranking of the texts of an index.

    Words are compared in lower case, without stop words or stemming, which depend on the language.
    The scores are those of Lucene (Lù 2024, arXiv 2407.03618) with k1 = 1.5 and b = 0.75.

    Args:
        texts: All texts.
        alive: ``(rows,)``, False for deleted rows; None if no row is deleted.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    def __init__(self, texts: Texts, alive: NDArray[np.bool_] | None):
        require_hybrid()
        self._rows = np.arange(len(texts)) if alive is None else np.flatnonzero(alive)
        documents = (document.text for document in texts.documents())
        if alive is not None:
            documents = (text for text, kept in zip(documents, alive, strict=True) if kept)
        self._library = import_module("bm25s")
        words = self._tokens(list(documents), return_ids=True)
        self._index: Any = None
        if words.vocab:
            self._index = self._library.BM25()
            self._index.index(words, show_progress=False)

    def rank(self, query: str, depth: int) -> NDArray[np.int64]:
        """Return the rows with the highest scores, best first.

        Texts without a word of the query are left out. Of equal scores the first row comes first.

        Args:
            query: The query.
            depth: Largest number of rows.
        """
        (words,) = self._tokens([query], return_ids=False)
        words = [word for word in words if self._index and word in self._index.vocab_dict]
        if not words:
            return np.empty(0, dtype=np.int64)
        scores = self._index.get_scores(words)
        best = np.flatnonzero(scores > 0)
        if len(best) > depth:
            lowest = np.partition(scores[best], len(best) - depth)[len(best) - depth]
            best = best[scores[best] >= lowest]
        order = np.argsort(-scores[best], kind="stable")[:depth]
        return self._rows[best[order]]

    def _tokens(self, texts: list[str], *, return_ids: bool) -> Any:
        return self._library.tokenize(
            texts,
            token_pattern=_WORDS,
            stopwords=None,
            return_ids=return_ids,
            show_progress=False,
        )


def reciprocal_rank_fusion(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Join rankings of the same items.

    The score of an item is the sum of 1 / (60 + rank) over the rankings that contain it, with
    ranks from 1 (Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet
    and individual rank learning methods", SIGIR).

    Args:
        rankings: Distinct items of each ranking, best first.

    Returns:
        Items with their scores, best first. Of equal scores, the item comes first that an earlier
        ranking contains, and within one ranking the one with the better rank.

    Examples:
        >>> reciprocal_rank_fusion([[7, 8], [8]])[0] == (8, 1 / 62 + 1 / 61)
        True
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
