"""Records from .jsonl files (one object a line) and .json files (one array)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, RowGate, shorten
from simcse_kit.data.compression import DAMAGED
from simcse_kit.data.lines import OnBytes, check_signature, open_bytes, scan, shown, unreadable
from simcse_kit.errors import DataError

__all__ = ["MAX_ARRAY_BYTES", "check_texts", "json_array", "json_lines", "not_text"]

MAX_ARRAY_BYTES = 200_000_000
"""Largest .json file read, in bytes after decompression, since it is held in memory as a whole."""

_SPACE = re.compile(r"[ \t\n\r]*")
_AS_LINES = "write it as .jsonl, an object a line"
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}
_Records = Iterator[tuple[int, dict[str, Any]]]


def json_lines(
    path: str | Path, gate: RowGate, limit: int, on_bytes: OnBytes | None = None
) -> _Records:
    """Read the objects of a .jsonl file, whose lines are at most ``limit`` bytes long."""
    number = 0
    for number, text, problem in scan(path, max_line_bytes=limit, on_bytes=on_bytes, returns=True):
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


def json_array(
    path: str | Path, gate: RowGate, limit: int, on_bytes: OnBytes | None = None
) -> _Records:
    """Read the objects of a .json file, whose texts are at most ``limit`` bytes long.

    A string in the array means ``{"text": string}``.
    """
    for line, value, source in _items(_whole(path, on_bytes), path):
        record = {"text": value} if isinstance(value, str) else value
        problem = _check_object(record, source) or check_texts(record.values(), limit)
        if problem is None:
            yield line, record
        else:
            gate.reject(line, problem)


def check_texts(values: Iterable[Any], max_bytes: int) -> Problem | None:
    """Find a NUL character or a text longer than ``max_bytes`` among ``values`` and their lists."""
    for text in _texts_in(values):
        if "\0" in text:
            return _nul_in_text()
        if len(text) * 4 > max_bytes and len(text.encode("utf-8")) > max_bytes:
            return Problem(
                "line too long",
                f"a text is longer than {max_bytes} bytes; split it, or raise "
                "ReadOptions.max_line_bytes in Python",
            )
    return None


def not_text(key: str, value: Any) -> Problem:
    """Describe a value that should be a text."""
    if value is None:
        remedy = "fill it in, or drop the row"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        remedy = "name the columns that hold text with --columns a,b,c"
    else:
        remedy = "write one text"
    return Problem("value is not text", f"{key!r} is {_json_name(value)}, not a string; {remedy}")


def _parse(text: str, *, first: bool) -> dict[str, Any] | Problem:
    problem: Problem | None
    try:
        value = _DECODER.decode(text)
        problem = _check_object(value, text)
    except (ValueError, RecursionError) as error:
        problem = _decoding_problem(error)
    if problem is None:
        return value  # type: ignore[no-any-return]
    if first and text.lstrip().startswith("["):
        hint = "; if the file is one JSON array, rename it to .json"
        return Problem(problem.reason, problem.message + hint)
    return problem


class _RepeatedKeyError(ValueError):
    """A JSON object has the same key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(key)
            seen.add(key)
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _decoding_problem(error: ValueError | RecursionError) -> Problem:
    if isinstance(error, _RepeatedKeyError):
        return Problem("repeated key", f"key {shorten(str(error))} occurs twice; rename one")
    if isinstance(error, json.JSONDecodeError):
        return Problem("invalid JSON", f"invalid JSON at column {error.colno}: {error.msg}")
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return Problem("invalid JSON", f"invalid JSON: {what}")


def _check_object(value: Any, source: str) -> Problem | None:
    """Find a problem in a decoded row; its ``source`` shows escapes that UTF-8 cannot hold."""
    if not isinstance(value, dict):
        return Problem(
            "not a JSON object",
            f'JSON, but {_json_name(value)}; write an object a line, such as {{"text": "..."}}',
        )
    if "\\u" in source:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return Problem(
                "lone surrogate",
                "a \\u escape is half of a surrogate pair; write the character itself",
            )
        if "\\u0000" in source and any("\0" in text for text in _texts_in(value.values())):
            return _nul_in_text()
    return None


def _texts_in(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _texts_in(value)


def _nul_in_text() -> Problem:
    return Problem("NUL byte", "NUL character in a text; remove it")


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a number")


def _items(text: str, path: str | Path) -> Iterator[tuple[int, Any, str]]:
    """Decode the items of a JSON array one by one, each with its line and its JSON."""

    def error(message: str, place: int) -> DataError:
        return DataError(message, file=path, line=text.count("\n", 0, place) + 1)

    def decode(start: int) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as problem:
            place = getattr(problem, "pos", start)
            raise error(_decoding_problem(problem).message, place) from None

    start = _after_space(text, 0)
    if start == len(text):
        raise DataError("the file is empty", file=path)
    if text[start] != "[":
        value, end = decode(start)
        end = _after_space(text, end)
        if isinstance(value, dict) and text.startswith("{", end):
            raise error("one object a line and not one JSON array; rename the file to .jsonl", end)
        raise DataError(
            f"holds one JSON value and not an array of objects or strings; {_AS_LINES}", file=path
        )
    line, counted, mark = 1, 0, ","
    start = _after_space(text, start + 1)
    if text.startswith("]", start):
        raise DataError("the file is empty: its array has no item", file=path)
    while mark == ",":
        value, end = decode(start)
        line, counted = line + text.count("\n", counted, start), start
        yield line, value, text[start:end]
        end = _after_space(text, end)
        mark = text[end : end + 1]
        start = _after_space(text, end + 1)
    if mark != "]":
        raise error("invalid JSON: expected a comma or the end of the array", start)
    if start < len(text):
        raise error("text after the end of the JSON array; remove it", start)


def _after_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    assert match is not None
    return match.end()


def _whole(path: str | Path, on_bytes: OnBytes | None) -> str:
    """Read the text of a file of bounded size."""
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
