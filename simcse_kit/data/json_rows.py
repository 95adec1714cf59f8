"""Rows from .jsonl files, an object a line, and .json files, one array of objects or strings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, RowGate
from simcse_kit.data.compression import DAMAGED
from simcse_kit.data.json_values import DECODER, check_object, check_texts, value_problem
from simcse_kit.data.lines import (
    MAX_LINE_BYTES,
    OnBytes,
    check_signature,
    open_bytes,
    scan,
    shown,
    unreadable,
)
from simcse_kit.errors import DataError

__all__ = ["MAX_ARRAY_BYTES", "json_records"]

MAX_ARRAY_BYTES = 200_000_000
"""Largest .json file read, in bytes after decompression. It is held in memory as a whole."""

_SPACE = re.compile(r"[ \t\n\r]*")
_AS_LINES = "write it as .jsonl, an object a line"


def json_records(
    path: str | Path,
    format: str,
    gate: RowGate,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl or .json file with their line numbers; bad ones go to ``gate``.

    A string in the array of a .json file stands for ``{"text": string}``.

    Args:
        path: the file.
        format: ``jsonl`` or ``json``.
        gate: decides over bad rows.
        max_line_bytes: the longest line accepted; in a .json file, the longest text.
        on_bytes: called with the number of bytes read from the file.

    Raises:
        DataError: the file cannot be read or is empty, or ``gate`` does not skip.
    """
    if format == "json":
        return _array_records(path, gate, max_line_bytes=max_line_bytes, on_bytes=on_bytes)
    return _line_records(path, gate, max_line_bytes=max_line_bytes, on_bytes=on_bytes)


def _line_records(
    path: str | Path, gate: RowGate, *, max_line_bytes: int, on_bytes: OnBytes | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for number, text, problem in scan(
        path, max_line_bytes=max_line_bytes, on_bytes=on_bytes, returns=True
    ):
        if problem is None and not text.strip():
            gate.blank(number)
            continue
        gate.settle()
        parsed = problem or _parse(text, first=number == 1)
        if isinstance(parsed, Problem):
            gate.reject(number, parsed)
        else:
            yield number, parsed
    gate.finish(number)


def _parse(text: str, *, first: bool) -> dict[str, Any] | Problem:
    problem: Problem | None
    try:
        value = DECODER.decode(text)
        problem = check_object(value, text)
    except (ValueError, RecursionError) as error:
        problem = value_problem(error)
    if problem is None:
        return value  # type: ignore[no-any-return]
    if first and text.lstrip().startswith("["):
        hint = "; if the file is one JSON array, rename it to .json"
        return Problem(problem.reason, problem.message + hint)
    return problem


def _array_records(
    path: str | Path, gate: RowGate, *, max_line_bytes: int, on_bytes: OnBytes | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _whole(path, on_bytes)
    array = _Array(text, path)
    for line, value, source in array:
        record = {"text": value} if isinstance(value, str) else value
        problem = check_object(record, source)
        if problem is None:
            problem = check_texts(record.values(), max_line_bytes)
        if problem is None:
            yield line, record
        else:
            gate.reject(line, problem)


class _Array:
    """The items of a JSON array, decoded one after the other.

    Args:
        text: the whole file.
        path: the file, named in messages.
    """

    def __init__(self, text: str, path: str | Path):
        self._text = text
        self._path = path
        self._at = 0
        self._line = 1

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        """Each item with the line where it begins and its JSON."""
        self._skip_space()
        if self._at == len(self._text):
            raise DataError("the file is empty", file=self._path)
        if self._next() != "[":
            raise self._no_array()
        self._at += 1
        self._skip_space()
        if self._next() == "]":
            raise DataError("the file is empty: its array has no item", file=self._path)
        while True:
            start = self._at
            value = self._decoded()
            yield self._line, value, self._text[start : self._at]
            self._line += self._text.count("\n", start, self._at)
            self._skip_space()
            mark = self._next()
            self._at += 1
            self._skip_space()
            if mark == "]":
                break
            if mark != ",":
                raise self._error("invalid JSON: expected a comma or the end of the array")
        if self._at < len(self._text):
            raise self._error("text after the end of the JSON array; remove it")

    def _decoded(self) -> Any:
        try:
            value, self._at = DECODER.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            place = getattr(error, "pos", self._at)
            self._line += self._text.count("\n", self._at, place)
            raise self._error(value_problem(error).message) from None
        return value

    def _no_array(self) -> DataError:
        """The error of a file whose first value is no array."""
        value = self._decoded()
        self._skip_space()
        if isinstance(value, dict) and self._next() == "{":
            return self._error(
                "one object a line and not one JSON array; rename the file to .jsonl"
            )
        return DataError(
            f"holds one JSON value and not an array of objects or strings; {_AS_LINES}",
            file=self._path,
        )

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._line += self._text.count("\n", self._at, match.end())
        self._at = match.end()

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, message: str) -> DataError:
        return DataError(message, file=self._path, line=self._line)


def _whole(path: str | Path, on_bytes: OnBytes | None) -> str:
    """The text of a file of bounded size."""
    try:
        with open_bytes(path, on_bytes) as stream:
            raw = stream.read(MAX_ARRAY_BYTES + 1)
    except (*DAMAGED, OSError) as error:
        raise unreadable(path, error) from None
    if len(raw) > MAX_ARRAY_BYTES:
        raise DataError(
            f"more than {MAX_ARRAY_BYTES // 1_000_000} MB in one JSON array, which is held in "
            f"memory as a whole; {_AS_LINES}",
            file=shown(path),
        )
    check_signature(raw[:16], path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte 0x{raw[error.start]:02x}; convert the file with: "
            "iconv -f ENCODING -t UTF-8",
            file=shown(path),
            line=raw.count(b"\n", 0, error.start) + 1,
        ) from None
