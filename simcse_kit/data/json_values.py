"""Values of JSON rows: how they are parsed, and what makes one bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from simcse_kit.data.bad_rows import Problem, shorten

__all__ = ["DECODER", "check_object", "check_texts", "json_name", "not_text", "value_problem"]

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(key)
            seen.add(key)
    return record


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
"""Decodes JSON and refuses an object that has a key twice."""


def value_problem(error: ValueError | RecursionError) -> Problem:
    """Why :data:`DECODER` refused a text."""
    if isinstance(error, RepeatedKeyError):
        return Problem("repeated key", f"key {shorten(str(error))} occurs twice; rename one")
    if isinstance(error, json.JSONDecodeError):
        return Problem("invalid JSON", f"invalid JSON at column {error.colno}: {error.msg}")
    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return Problem("invalid JSON", f"invalid JSON: {what}")


def check_object(value: Any, source: str) -> Problem | None:
    """What is wrong with a decoded row; None where nothing is.

    Args:
        value: the row.
        source: the JSON that it was decoded from; searched for escapes, which may spell what no
            UTF-8 file can hold.
    """
    if not isinstance(value, dict):
        return Problem(
            "not a JSON object",
            f'JSON, but {json_name(value)}; write an object a line, such as {{"text": "..."}}',
        )
    if "\\u" in source:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return Problem(
                "lone surrogate",
                "a \\u escape is half of a surrogate pair; write the character itself",
            )
        if "\\u0000" in source and any("\0" in text for text in texts_in(value.values())):
            return nul_in_text()
    return None


def check_texts(values: Any, max_bytes: int) -> Problem | None:
    """What is wrong with the strings among ``values``; None where nothing is."""
    for text in texts_in(values):
        if "\0" in text:
            return nul_in_text()
        if len(text) * 4 > max_bytes and len(text.encode("utf-8")) > max_bytes:
            return Problem(
                "line too long",
                f"a text is longer than {max_bytes} bytes; split it (in Python, or raise "
                "max_line_bytes)",
            )
    return None


def texts_in(values: Any) -> Iterator[str]:
    """The strings among ``values``, those inside lists too."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from texts_in(value)


def nul_in_text() -> Problem:
    """The problem of a text with a NUL character."""
    return Problem("NUL byte", "NUL character in a text; remove it")


def not_text(key: str, value: Any) -> Problem:
    """The problem of a value that should be a text."""
    if value is None:
        remedy = "fill it in, or drop the row"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        remedy = "name the columns that hold text with --columns a,b,c"
    else:
        remedy = "write one text"
    return Problem("value is not text", f"{key!r} is {json_name(value)}, not a string; {remedy}")


def json_name(value: Any) -> str:
    """What a decoded value is in JSON's words."""
    return _JSON_NAMES.get(type(value), "a number")
