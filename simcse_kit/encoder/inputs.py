"""Sentences, sizes and names as callers give them, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Set
from os import PathLike, fspath
from types import NoneType
from typing import Any

import numpy as np

from simcse_kit.errors import ConfigError, DataError

__all__ = [
    "check_sizes",
    "check_switches",
    "checked_texts",
    "path_text",
    "shown",
    "texts_one_by_one",
    "whole_number",
]


def checked_texts(sentences: Any, *, first: int = 0) -> list[str]:
    """The sentences as a list.

    Args:
        sentences: one string; or a list, a tuple, a one-dimensional array, a column of a table
            (pandas, pyarrow, datasets, polars) or another iterable of strings in a fixed order.
        first: number of the first sentence in error messages.

    Raises:
        DataError: they are something else, an item is not a string, or a string is not valid
            Unicode.
    """
    if isinstance(sentences, str):
        sentences = [sentences]
    texts = list(_in_order(sentences))
    for number, text in enumerate(texts, start=first):
        # The quick way for nearly all sentences.
        if type(text) is not str or not text.isascii():
            _check_text(text, number)
    return texts


def texts_one_by_one(sentences: Any) -> Iterator[str]:
    """The sentences of an iterable, each checked when its turn comes.

    Args:
        sentences: as for :func:`checked_texts`, but not a single string.

    Raises:
        DataError: at once, where this is no iterable of strings; else when a wrong item is read.
    """
    if isinstance(sentences, str):
        raise DataError(
            f"sentences are one string {shown(sentences)}, not an iterable of strings; put it "
            "into a list"
        )
    return _each_checked(_in_order(sentences))


def _each_checked(items: Iterable[Any]) -> Iterator[str]:
    for number, text in enumerate(items):
        if type(text) is not str or not text.isascii():
            _check_text(text, number)
        yield text


def _in_order(sentences: Any) -> Iterable[Any]:
    """The items of a container, unless it is one whose items are no sentences in a fixed order."""
    kind = type(sentences).__name__
    columns = _columns(sentences)
    if columns:
        raise DataError(
            f"sentences are a {kind} with the columns {', '.join(map(repr, columns[:5]))}; give "
            f"one of them, such as data[{columns[0]!r}]"
        )
    if isinstance(sentences, Mapping):
        only_texts = all(isinstance(value, str) for value in sentences.values())
        give = "its values: list(sentences.values())" if only_texts else "one list of strings"
        raise DataError(f"sentences are a {kind} with {len(sentences)} keys; give {give}")
    if isinstance(sentences, Set) and not isinstance(sentences, KeysView):
        raise DataError(
            f"sentences are a {kind}, which has no order, so that vectors could not be assigned "
            "to them; give a list: sorted(sentences)"
        )
    if isinstance(sentences, bytes | bytearray | memoryview):
        raise DataError(f"sentences are {kind}; decode them: bytes(sentences).decode('utf-8')")
    if isinstance(sentences, PathLike):
        raise DataError(
            f"sentences are the path {shown(str(sentences))}; give the file's lines: "
            "path.read_text(encoding='utf-8').splitlines()"
        )
    if getattr(sentences, "ndim", 1) != 1:
        texts = isinstance(sentences, np.ndarray) and sentences.dtype.kind in "OSTU"
        give = "one dimension: sentences.reshape(-1)" if texts else "strings, not numbers"
        raise DataError(f"sentences are a {kind} of shape {tuple(sentences.shape)}; give {give}")
    if not isinstance(sentences, Iterable):
        raise DataError(
            f"sentences are {kind} {shown(sentences)}, not a string or an iterable of strings "
            "such as a list"
        )
    # Items of pyarrow's columns are objects of its own.
    return sentences.to_pylist() if hasattr(sentences, "to_pylist") else sentences


def _columns(table: Any) -> list[str]:
    """Names of the columns of a table of pandas, polars, pyarrow or datasets."""
    # Of the class: an attribute of a pandas Series may be one of its values.
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
    """The start of a value's representation, in one line."""
    return f"{' '.join(repr(value).split()):.60}"


def whole_number(value: Any) -> int | None:
    """An integer of Python or NumPy as ``int``; None for all else, such as True and 2.0."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    return None


def check_sizes(*, optional: bool = True, **sizes: Any) -> None:
    """Refuse what is no number of sentences or tokens.

    Args:
        optional: allow None.
        sizes: the values by the names of the arguments.

    Raises:
        ConfigError: one is not a whole number from 1.
    """
    for what, value in sizes.items():
        if (value is not None or not optional) and (whole_number(value) or 0) < 1:
            raise ConfigError(f"encode({what}={value!r}); it must be an integer of at least 1")


def check_switches(**switches: Any) -> None:
    """Refuse what is no yes or no.

    Raises:
        ConfigError: one is not True, False, 1, 0 or None.
    """
    for what, value in switches.items():
        known = isinstance(value, bool | np.bool_ | NoneType) or whole_number(value) in (0, 1)
        if not known:
            raise ConfigError(f"encode({what}={value!r}); give True or False")


def path_text(value: Any, what: str) -> str:
    """A name or path as text.

    Args:
        value: text or a path.
        what: name of the argument.

    Raises:
        ConfigError: it is something else.
    """
    text = fspath(value) if isinstance(value, str | PathLike) else value
    if not isinstance(text, str):
        raise ConfigError(f"{what} is {type(value).__name__} {shown(value)}, not a name or path")
    return text
