"""Rows with named values, from .jsonl and .parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_kit.errors import DataError
from simcse_kit.text.files import check_file
from simcse_kit.text.lines import MAX_LINE_BYTES, OnBytes, scan
from simcse_kit.text.report import Problem, RowGate, shorten
from simcse_kit.text.tables import choose_columns, is_negative, labelled_row, row_texts

__all__ = ["ObjectLayout", "jsonl_records", "parquet_records"]

_BATCH = 4096
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """Which keys of a record hold its texts.

    Args:
        fixed: key of the anchor and, unless the rows are single texts, of the positive.
        negatives: keys of the hard negatives.
        named: the user named the keys; others are then ignored and those of ``negatives`` are the
            only ones read. Otherwise every key must be a recognised one.
        label: key of the label of labelled rows.
    """

    fixed: tuple[str, ...]
    negatives: tuple[str, ...]
    named: bool
    label: str | None = None

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        columns: Sequence[str] | None,
        *,
        file: str | Path,
        line: int,
        label: str | None = None,
    ) -> ObjectLayout:
        """The layout of a file whose first record has ``keys``.

        Raises:
            DataError: a wanted key is missing, or the keys are not recognised.
        """
        names = choose_columns(keys, columns, file=file, line=line, lists=True, label=label)
        if label is not None:
            return cls(names[:2], (), True, label)
        return cls(names[:2], names[2:], columns is not None)

    def texts(self, record: Mapping[str, Any]) -> tuple[str, ...] | Problem:
        """The texts of one record, or what is wrong with it."""
        fixed: list[str] = []
        for key in self.fixed:
            if key not in record:
                return Problem("missing key", f"no key {key!r}; the keys are {_keys(record)}")
            value = record[key]
            if not isinstance(value, str):
                return _not_text(key, value)
            fixed.append(value.strip())
        if self.label is not None:
            value = record.get(self.label)
            # JSON's true is no number.
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return labelled_row(
                fixed, repr(value) if number or not isinstance(value, str) else value
            )
        keys = self.negatives
        if not self.named:
            keys = tuple(key for key in record if key not in self.fixed)
            for key in keys:
                if not (self.negatives and is_negative(key, lists=True)):
                    expected = ", ".join((*self.fixed, *self.negatives))
                    return Problem(
                        "unexpected key",
                        f"unexpected key {shorten(key)}; the first row has {expected}; name the "
                        "keys to read with --columns a,b,c",
                    )
        negatives: list[str] = []
        for key in keys:
            problem = _add_negatives(negatives, key, record.get(key))
            if problem is not None:
                return problem
        return row_texts(fixed, negatives if self.negatives else None)


def jsonl_records(
    path: str | Path,
    gate: RowGate,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file with their line numbers; bad lines go to ``gate``.

    Raises:
        DataError: the file cannot be read or is empty, or ``gate`` does not skip.
    """
    number = 0
    for number, text, problem in scan(
        path, max_line_bytes=max_line_bytes, on_bytes=on_bytes, returns=True
    ):
        if problem is None and not text.strip():
            gate.blank(number)
            continue
        gate.settle()
        parsed = problem or _parse(text)
        if isinstance(parsed, Problem):
            gate.reject(number, parsed)
        else:
            yield number, parsed
    gate.finish(number)


def parquet_records(
    path: str | Path,
    columns: Sequence[str] | None,
    gate: RowGate,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
    label: str | None = None,
) -> tuple[ObjectLayout, Iterator[tuple[int, dict[str, Any]]]]:
    """The layout of a .parquet file and its rows, numbered from 1.

    Raises:
        DataError: the file is not parquet or is damaged, has no row, lacks a column, or has one of
            the wrong type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = check_file(path).stat().st_size
    if size == 0:
        raise DataError("the file is empty", file=path)
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            schema, total = opened.schema_arrow, opened.metadata.num_rows
            present = schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    names = choose_columns(present, columns, file=path, line=None, lists=True, label=label)
    for index, name in enumerate(names):
        # A label that is no number is found row by row.
        if name != label:
            _check_type(schema.field(name).type, name, path, lists=index > 1)
    if total == 0:
        raise DataError("the file is empty: it has no row", file=path)

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            with pq.ParquetFile(path, memory_map=True) as opened:
                for batch in opened.iter_batches(batch_size=_BATCH, columns=list(names)):
                    chosen = [batch.column(batch.schema.get_field_index(name)) for name in names]
                    for row in zip(*map(_values, chosen), strict=True):
                        number += 1
                        problem = _check_strings(row, max_line_bytes)
                        if problem is None:
                            yield number, dict(zip(names, row, strict=True))
                        else:
                            gate.reject(number, problem)
                    if on_bytes is not None:
                        on_bytes(size * batch.num_rows // total)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None

    negatives = () if label is not None else names[2:]
    return ObjectLayout(names[:2], negatives, True, label), records()


def _parse(text: str) -> dict[str, Any] | Problem:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:
            # Escapes may spell what no UTF-8 file can hold.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _RepeatedKeyError as error:
        return Problem("repeated key", f"key {shorten(str(error))} occurs twice; rename one")
    except UnicodeEncodeError:
        return Problem(
            "lone surrogate", "a \\u escape is half of a surrogate pair; write the character itself"
        )
    except json.JSONDecodeError as error:
        return Problem("invalid JSON", f"invalid JSON at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Problem("invalid JSON", f"invalid JSON: {what}")
    if not isinstance(value, dict):
        return Problem(
            "not a JSON object",
            f'JSON, but {_json_name(value)}; write an object a line, such as {{"text": "..."}}',
        )
    if "\\u0000" in text and any("\0" in string for string in _strings(value.values())):
        return _nul()
    return value


class _RepeatedKeyError(ValueError):
    """A JSON object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return record


def _add_negatives(found: list[str], key: str, value: Any) -> Problem | None:
    """Append the hard negatives in ``value``: a string, a list of strings, or nothing (null)."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            found.append(item.strip())
        elif item is not None:
            return _not_text(key, item)
    return None


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def _strings(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _strings(value)


def _check_strings(row: tuple[Any, ...], max_bytes: int) -> Problem | None:
    for value in row:
        if isinstance(value, UnicodeDecodeError):
            byte = value.object[value.start]
            return Problem(
                "not UTF-8",
                f"not UTF-8: byte 0x{byte:02x} at byte {value.start + 1} of the text; write the "
                "column again as UTF-8",
            )
    for text in _strings(row):
        if "\0" in text:
            return _nul()
        if len(text) * 4 > max_bytes and len(text.encode("utf-8")) > max_bytes:
            return Problem(
                "line too long",
                f"a text is longer than {max_bytes} bytes; split it, or raise max_line_bytes",
            )
    return None


def _check_type(kind: Any, name: str, path: str | Path, *, lists: bool) -> None:
    from pyarrow import types

    inner = kind
    if lists and (
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    ):
        inner = kind.value_type
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not (types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)):
        allowed = "string or list of string" if lists else "string"
        raise DataError(f"column {name!r} has type {kind}; allowed: {allowed}", file=path)


def _damaged(path: str | Path, error: Exception) -> DataError:
    cause = " ".join(str(error).split())
    return DataError(f"not a readable parquet file: {cause[:200]}", file=path)


def _not_text(key: str, value: Any) -> Problem:
    return Problem("value is not text", f"{key!r} is {_json_name(value)}, not a string; quote it")


def _nul() -> Problem:
    return Problem("NUL byte", "NUL character in a text; remove it")


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a number")


def _keys(record: Mapping[str, Any]) -> str:
    return shorten(", ".join(record))
