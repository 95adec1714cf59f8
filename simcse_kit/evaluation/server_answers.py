"""Vectors out of what a server of embeddings answers."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnswerError", "most_bytes", "read_vectors"]

_MOST_DIM = 16_384
# Of a number in JSON with its comma and perhaps white space; 17 digits, sign, exponent.
_NUMBER = 32
# Of names, usage and white space: for the answer, and for each row.
_ANSWER, _ROW = 65_536, 1024
# More digits are no count and no coordinate.
_DIGITS = 18


class AnswerError(Exception):
    """The answer is something else than the embeddings that were asked for."""


def most_bytes(rows: int, dim: int | None) -> int:
    """The size of the largest plausible answer.

    Args:
        rows: embeddings that were asked for.
        dim: numbers of one, if known.
    """
    return _ANSWER + rows * (_ROW + _NUMBER * (dim or _MOST_DIM))


def read_vectors(body: bytes, count: int, dim: int | None) -> NDArray[np.float32]:
    """The vectors (count, d) in the order of the texts, whatever the order of the answer.

    Args:
        body: ``{"data": [{"index": 0, "embedding": [...]}, ...]}``; an embedding may also be the
            base64 form of its float32 numbers.
        count: texts that were sent.
        dim: numbers that an embedding must have; None for any.

    Raises:
        AnswerError: with a sentence that says what is wrong.
    """
    try:
        answer = json.loads(body, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise AnswerError("the answer is no JSON, or not all of it") from None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AnswerError(_no_embeddings(count))
    if len(rows) != count:
        raise AnswerError(f"the answer has {len(rows):,} embeddings for {count:,} texts")
    found: dict[int, NDArray[np.float32]] = {}
    for row in rows:
        index = row.get("index")
        if type(index) is not int or not 0 <= index < count:
            raise AnswerError(f"an embedding's index is {_shown(index)}, not 0 to {count - 1}")
        if index in found:
            raise AnswerError(f"two embeddings have the index {index}")
        found[index] = _vector(row.get("embedding"), count)
        dim = len(found[index]) if dim is None else dim
        if len(found[index]) != dim:
            raise AnswerError(
                f"one embedding has {len(found[index]):,} numbers, another {dim:,}; all must have "
                "the same"
            )
    return np.stack([found[index] for index in range(count)])


def _vector(embedding: Any, count: int) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        try:
            content = base64.b64decode(embedding, validate=True)
        except (binascii.Error, ValueError):
            raise AnswerError("an embedding is a string, but not base64") from None
        if len(content) % 4:
            raise AnswerError("an embedding in base64 is cut off")
        vector = np.frombuffer(content, dtype="<f4").astype(np.float32)
    elif isinstance(embedding, list):
        if not all(type(number) in (int, float) for number in embedding):
            raise AnswerError("an embedding holds something else than numbers")
        with np.errstate(over="ignore"):
            vector = np.array(embedding, dtype=np.float64).astype(np.float32)
    else:
        raise AnswerError(_no_embeddings(count))
    if not 1 <= len(vector) <= _MOST_DIM:
        raise AnswerError(f"an embedding has {len(vector):,} numbers; 1 to {_MOST_DIM:,} are read")
    if not np.isfinite(vector).all():
        raise AnswerError("an embedding holds NaN, infinity, or a number too large")
    return vector


def _no_embeddings(count: int) -> str:
    return f"the answer is something else than {count} embeddings; is it an OpenAI-compatible API?"


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
