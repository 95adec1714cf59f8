"""Checks of queries and of the options of a search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, DataError

__all__ = ["check_queries", "check_search", "check_vectors"]

_LONGEST = 100_000


def check_search(top_k: Any, threshold: Any) -> None:
    """Check the options of a search.

    Raises:
        ConfigError: ``top_k`` is not a whole number of at least 1, or the threshold is not a number
            from -1 to 1.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise ConfigError(f"top_k is {top_k!r}; give a whole number of at least 1")
    if threshold is None:
        return
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not number or not -1 <= threshold <= 1:
        raise ConfigError(f"the threshold is {threshold!r}; give a cosine from -1 to 1")


def check_queries(queries: Any) -> list[str]:
    """Check queries, and return them as a list.

    Raises:
        DataError: They are one string or not strings, or one is blank, too long, or not Unicode.
    """
    if isinstance(queries, str) or not isinstance(queries, Iterable):
        raise DataError(f"the queries are {type(queries).__name__}; give a list of strings")
    texts = list(queries)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"query {number} is {type(text).__name__}; give a string")
        if not text.strip():
            raise DataError(f"query {number} is blank; give a text")
        if len(text) > _LONGEST:
            raise DataError(
                f"query {number} has {len(text):,} characters; allowed: at most {_LONGEST:,}; "
                "shorten it"
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"query {number} holds half a surrogate pair: {text!a:.60}; give text in UTF-8"
            ) from None
    return texts


def check_vectors(vectors: Any, dim: int) -> NDArray[np.float32]:
    """Check the vectors of queries, and return them as a contiguous float32 array.

    Raises:
        DataError: They have another shape, or hold NaN or infinity.
    """
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise DataError(f"the vectors have the shape {array.shape}; give (q, {dim})")
    if not np.isfinite(array).all():
        raise DataError("a vector holds NaN or infinity; give finite vectors of length 1")
    return array
