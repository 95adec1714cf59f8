"""Training rows given as Python objects, written to a file that the corpus reader opens."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

from simcse_kit.data.corpus_cache import cache_folder, make_private
from simcse_kit.data.remote import is_remote
from simcse_kit.errors import DataError

__all__ = ["LABEL", "InMemoryRows", "is_table", "table_rows", "write_rows"]

LABEL = "label"
"""Column of the number in rows that were given as ``(text, text, number)``."""

_REMEDY = "set SIMCSE_CACHE to a folder of your own"
_FORMS = (
    "a string, a tuple of two strings (anchor, positive), of three or more (and hard negatives), "
    "of two strings and a number (labelled pair), or a dict of columns"
)


def is_table(value: Any) -> bool:
    """Check whether a value is a table with the Arrow interface, such as a pandas DataFrame."""
    return hasattr(value, "__arrow_c_stream__")


def table_rows(table: Any) -> list[dict[str, Any]]:
    """Convert a table with the Arrow interface to one dict for each row; missing values are None.

    Args:
        table: A pandas or polars DataFrame, or a ``pyarrow.Table``.

    Raises:
        DataError: A column holds values of several types.

    Examples:
        >>> import pyarrow as pa
        >>> table_rows(pa.table({"text": ["a cat", "a dog"]}))
        [{'text': 'a cat'}, {'text': 'a dog'}]
    """
    import pyarrow as pa

    try:
        converted = pa.table(table)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the table cannot be read: {reason}; give columns of one type") from None
    # pandas adds its index as a column if it is not 0, 1, ...
    names = [name for name in converted.column_names if not name.startswith("__index_level_")]
    rows: list[dict[str, Any]] = converted.select(names).to_pylist()
    return rows


@dataclass(frozen=True)
class InMemoryRows:
    """A file of rows that were given as Python objects.

    Attributes:
        path: the file, named after its content, in the folder of built corpora.
        label: column of the number if the rows are labelled pairs; None otherwise.
    """

    path: Path
    label: str | None

    @contextmanager
    def errors_by_row(self) -> Iterator[None]:
        """Replace file and line in the errors of the reader by the number of the row."""
        try:
            yield
        except DataError as error:
            if error.file != str(self.path):
                raise
            where = "the data" if error.line is None else _row(error.line)
            prefix = error.file + ("" if error.line is None else f":{error.line}") + ": "
            raise DataError(f"{where}: {str(error).removeprefix(prefix)}") from None


def write_rows(rows: Iterable[Any]) -> InMemoryRows:
    """Write rows to a JSON Lines file in the folder of built corpora.

    Args:
        rows: an iterable of strings, tuples or dicts, for example a list, a generator or a
            ``datasets.Dataset``; it is read once. All rows have the same form. Or a table, as for
            :func:`table_rows`.

    Raises:
        DataError: there is no row, a row has another form, or a text is not valid Unicode.
        ConfigError: the folder cannot be written, or other users can write to it.
    """
    if is_table(rows):
        rows = table_rows(rows)
    if isinstance(rows, Mapping):
        raise DataError(
            f"the data is a dict with the keys {', '.join(map(str, list(rows)[:5]))}; give rows, "
            "or one split of a datasets.DatasetDict, such as data['train']"
        )
    try:
        items = iter(rows)
    except TypeError:  # such as an array without dimensions
        raise DataError(
            f"the data is {rows!r:.80}; give a list of sentences or of tuples"
        ) from None
    first = next(items, None)
    if first is None:
        raise DataError("the data has no rows; give at least 2")
    form = _form(first, 1)
    if form == "text" and isinstance(first, str) and _is_name(first):
        raise DataError(
            f"the data is a list of strings, of which the first, {first!r}, is the name of a file; "
            "give files as pathlib.Path objects, or names with settings={'data.train': [...]}"
        )
    folder = cache_folder()
    make_private(folder, remedy=_REMEDY)
    digest = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(suffix=".jsonl", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for number, item in enumerate(chain((first,), items), 1):
                line = _line(item, form, number)
                digest.update(line)
                file.write(line)
        path = folder / f"rows-{digest.hexdigest()[:40]}.jsonl"
        Path(name).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
    return InMemoryRows(path, LABEL if form == "labelled" else None)


def _form(item: Any, number: int) -> str:
    if isinstance(item, str):
        return "text"
    if isinstance(item, Mapping):
        return "dict"
    if isinstance(item, Sequence) and item and all(isinstance(text, str) for text in item[:2]):
        last: Any = item[-1]
        if len(item) == 3 and isinstance(last, Real) and last is not True and last is not False:
            return "labelled"
        if all(isinstance(text, str) for text in item):
            return ("text", "pair", "triplet")[min(len(item), 3) - 1]
    shown = repr(item)
    raise DataError(f"{_row(number)} is {shown[:60] + '...' * (len(shown) > 60)}; give {_FORMS}")


def _line(item: Any, form: str, number: int) -> bytes:
    found = _form(item, number)
    if found != form:
        raise DataError(f"{_row(number)} is a {found} but row 1 is a {form}; give rows of one form")
    if form == "text":
        item = {"text": item if isinstance(item, str) else item[0]}
    elif form == "labelled":
        item = {"sentence1": item[0], "sentence2": item[1], LABEL: float(item[2])}
    elif form != "dict":
        negatives = {"negatives": list(item[2:])} if len(item) > 2 else {}
        item = {"anchor": item[0], "positive": item[1], **negatives}
    try:
        return (json.dumps(dict(item), ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        reason = "is not valid Unicode" if isinstance(error, UnicodeError) else f"has {error}"
        raise DataError(f"{_row(number)} {reason}; give strings and numbers") from None


def _is_name(text: str) -> bool:
    """Check whether a text is the path of a file, or an address like one."""
    if is_remote(text) and " " not in text:
        return True
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def _row(number: int) -> str:
    return f"row {number} of the data"
