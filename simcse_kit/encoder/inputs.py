"""Sentences, numbers and paths given by callers, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Set
from os import PathLike, fspath
from typing import Any

import numpy as np

from simcse_kit.errors import ConfigError, DataError

__all__ = ["checked_texts", "path_text", "shown", "texts_one_by_one", "whole_number"]


def checked_texts(sentences: Any) -> list[str]:
    """Return sentences as a list.

    Args:
        sentences: One string; or a list, a tuple, a one-dimensional array, a column of a table
            (pandas, pyarrow, datasets, polars) or another iterable of strings in a fixed order.

    Raises:
        DataError: The argument is something else, an item is not a string, or a string is not
            valid Unicode.
    """
    if isinstance(sentences, str):
        sentences = [sentences]
    return list(_each_checked(_in_order(sentences)))


def texts_one_by_one(sentences: Any) -> Iterator[str]:
    """Iterate over sentences and check each one when it is read.

    Args:
        sentences: As for :func:`checked_texts`, but not a single string.

    Raises:
        DataError: Immediately, if the argument is not an iterable of strings; later, when a wrong
            item is read.
    """
    if isinstance(sentences, str):
        raise DataError(
            f"sentences are one string {shown(sentences)}, not an iterable of strings; put it "
            "into a list"
        )
    return _each_checked(_in_order(sentences))


def _each_checked(items: Iterable[Any]) -> Iterator[str]:
    for number, text in enumerate(items):
        # The fast path for nearly all sentences.
        if type(text) is not str or not text.isascii():
            _check_text(text, number)
        yield text


def _in_order(sentences: Any) -> Iterable[Any]:
    """Refuse containers whose items are not sentences in a fixed order."""
    kind = type(sentences).__name__
    problem = None
    if columns := _columns(sentences):
        problem = (
            f"are a {kind} with the columns {', '.join(map(repr, columns[:5]))}; give one of "
            f"them, such as data[{columns[0]!r}]"
        )
    elif isinstance(sentences, Mapping):
        only_texts = all(isinstance(value, str) for value in sentences.values())
        give = "its values: list(sentences.values())" if only_texts else "one list of strings"
        problem = f"are a {kind} with {len(sentences)} keys; give {give}"
    elif isinstance(sentences, Set) and not isinstance(sentences, KeysView):
        problem = (
            f"are a {kind}, which has no order, so that vectors could not be assigned to them; "
            "give a list: sorted(sentences)"
        )
    elif isinstance(sentences, bytes | bytearray | memoryview):
        problem = f"are {kind}; decode them: bytes(sentences).decode('utf-8')"
    elif isinstance(sentences, PathLike):
        problem = (
            f"are the path {shown(str(sentences))}; give the file's lines: "
            "path.read_text(encoding='utf-8').splitlines()"
        )
    elif getattr(sentences, "ndim", 1) != 1:
        texts = isinstance(sentences, np.ndarray) and sentences.dtype.kind in "OSTU"
        give = "one dimension: sentences.reshape(-1)" if texts else "strings, not numbers"
        problem = f"are a {kind} of shape {tuple(sentences.shape)}; give {give}"
    elif not isinstance(sentences, Iterable):
        problem = (
            f"are {kind} {shown(sentences)}, not a string or an iterable of strings such as a list"
        )
    if problem is not None:
        raise DataError(f"sentences {problem}")
    # The items of pyarrow's columns are objects of its own.
    items: Iterable[Any] = sentences.to_pylist() if hasattr(sentences, "to_pylist") else sentences
    return items


def _columns(table: Any) -> list[str]:
    """Return the column names of a table of pandas, polars, pyarrow or datasets."""
    # Looked up on the class: an attribute of a pandas Series may be one of its values.
    if isinstance(table, Mapping):
        return []
    names = next((n for n in ("column_names", "columns") if hasattr(type(table), n)), None)
    found = None if names is None else getattr(table, names)
    return [] if found is None else list(map(str, found))


def _check_text(text: Any, number: int) -> None:
    if not isinstance(text, str):
        raise DataError(
            f"sentence {number} is {type(text).__name__} {shown(text)}, not a string{_remedy(text)}"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"sentence {number} holds half a surrogate pair: {text!a:.60}; read the file as UTF-8"
        ) from None


def _remedy(item: Any) -> str:
    # NaN is not equal to itself.
    missing = isinstance(item, float | np.floating) and item != item
    if item is None or missing or type(item).__name__ in ("NAType", "NaTType"):
        return "; a missing value has no vector: leave it out, or put a text in its place"
    if isinstance(item, bytes | bytearray):
        return "; decode it: item.decode('utf-8')"
    if isinstance(item, list | tuple | np.ndarray):
        return "; give one flat list of strings"
    if isinstance(item, Mapping):
        return "; give the text alone, such as item['text']"
    if isinstance(item, PathLike):
        return "; give the file's text: item.read_text(encoding='utf-8')"
    return "; give str(item) if it is meant as text"


def shown(value: Any) -> str:
    """Return the first 60 characters of a value's representation, in one line."""
    return f"{' '.join(repr(value).split()):.60}"


def whole_number(value: Any) -> int | None:
    """Return a Python or NumPy integer as ``int``; None for anything else, such as True or 2.0."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    return None


def path_text(value: Any, what: str) -> str:
    """Return a name or path as text.

    Args:
        value: Text or a path.
        what: Name of the argument, for the message.

    Raises:
        ConfigError: The value is something else.
    """
    text = fspath(value) if isinstance(value, str | PathLike) else value
    if not isinstance(text, str):
        raise ConfigError(f"{what} is {type(value).__name__} {shown(value)}, not a name or path")
    return text
