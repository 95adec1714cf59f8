"""Parser of the answers of embedding servers."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnswerError", "most_bytes", "read_vectors"]

_MOST_DIM = 16_384
# Bytes of a number in JSON: 17 digits, sign, exponent, comma and white space.
_NUMBER = 32
# Bytes of names, usage and white space: in the answer, and in each row.
_ANSWER, _ROW = 65_536, 1024
# Numbers with more digits are neither counts nor coordinates.
_DIGITS = 18


class AnswerError(Exception):
    """The answer does not contain the requested embeddings."""


def most_bytes(rows: int, dim: int | None) -> int:
    """Compute the size of the largest plausible answer in bytes.

    Args:
        rows: number of requested embeddings.
        dim: dimension of an embedding; None if it is not known.
    """
    return _ANSWER + rows * (_ROW + _NUMBER * (dim or _MOST_DIM))


def read_vectors(body: bytes, count: int, dim: int | None) -> NDArray[np.float32]:
    """Parse the (count, d) vectors of an answer into the order of the texts.

    Args:
        body: ``{"data": [{"index": 0, "embedding": [...]}, ...]}``; an embedding may also be the
            base64 form of its float32 numbers.
        count: number of texts that were sent.
        dim: required dimension; None for any.

    Raises:
        AnswerError: the answer has another form.

    Examples:
        >>> read_vectors(b'{"data": [{"index": 0, "embedding": [0.5, 1]}]}', 1, None).tolist()
        [[0.5, 1.0]]
    """
    try:
        answer = json.loads(body, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise AnswerError("the answer is not complete JSON") from None
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
                f"one embedding has {len(found[index]):,} numbers, another {dim:,}; all must be of "
                "the same length"
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
            raise AnswerError("an embedding contains values that are not numbers")
        with np.errstate(over="ignore"):
            vector = np.array(embedding, dtype=np.float64).astype(np.float32)
    else:
        raise AnswerError(_no_embeddings(count))
    if not 1 <= len(vector) <= _MOST_DIM:
        raise AnswerError(f"an embedding has {len(vector):,} numbers; 1 to {_MOST_DIM:,} are read")
    if not np.isfinite(vector).all():
        raise AnswerError("an embedding contains NaN, infinity, or a number that is too large")
    return vector


def _no_embeddings(count: int) -> str:
    return f"the answer is not {count} embeddings; use the address of an OpenAI-compatible API"


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
