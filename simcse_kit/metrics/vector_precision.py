"""Vectors in fewer bits: float16, 8-bit integers with calibrated ranges, and single bits.

The numbers are those of ``quantize_embeddings`` of sentence-transformers:
https://github.com/huggingface/sentence-transformers
"""

from __future__ import annotations

import logging
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, DataError

__all__ = [
    "OutputPrecision",
    "check_output_precision",
    "dequantize_vectors",
    "needs_ranges",
    "quantize_vectors",
    "vector_dtype",
    "vector_ranges",
]

logger = logging.getLogger(__name__)

OutputPrecision: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""Number format of vectors.

- ``float32`` and ``float16``: the numbers themselves.
- ``int8`` and ``uint8``: 256 steps between the lowest and the highest number of each dimension.
- ``binary`` and ``ubinary``: one bit per dimension, 1 for positive numbers; eight dimensions per
  int8 (shifted by -128) or uint8.
"""

_TYPES = {"float16": np.float16, "int8": np.int8, "binary": np.int8, "float32": np.float32}
# Ranges of fewer vectors than this cut off many numbers of others.
_FEW = 100


def check_output_precision(name: Any) -> OutputPrecision:
    """Return ``name`` if it is an :data:`OutputPrecision`.

    Raises:
        ConfigError: It is not; the message lists the names.
    """
    if not isinstance(name, str) or name not in get_args(OutputPrecision):
        allowed = ", ".join(map(repr, get_args(OutputPrecision)))
        raise ConfigError(f"output_precision is {name!r}; allowed: {allowed}")
    return name  # type: ignore[return-value]


def needs_ranges(precision: OutputPrecision) -> bool:
    """Return whether vectors in this precision need the ranges of the dimensions."""
    return precision in ("int8", "uint8")


def vector_dtype(precision: OutputPrecision, dim: int) -> np.dtype[Any]:
    """Return the type of one vector of ``dim`` dimensions, little-endian and with its shape.

    Examples:
        >>> vector_dtype("ubinary", 256)
        dtype(('u1', (32,)))
    """
    width = -(-dim // 8) if precision.endswith("binary") else dim
    return np.dtype((np.dtype(_TYPES.get(precision, np.uint8)).newbyteorder("<"), (width,)))


def vector_ranges(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the lowest and the highest number of each dimension.

    Args:
        vectors: ``(n, d)`` vectors of typical sentences, 2 or more; thousands are better.

    Returns:
        ``(2, d)`` float32.

    Raises:
        DataError: There are fewer than two vectors.

    Examples:
        >>> vector_ranges(np.array([[0.0, 2.0], [1.0, -2.0]])).tolist()
        [[0.0, -2.0], [1.0, 2.0]]
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise DataError(
            f"the ranges of int8 vectors need two vectors or more, and these have the shape "
            f"{vectors.shape}; give ranges of other vectors, from vector_ranges(vectors)"
        )
    if len(vectors) < _FEW:
        logger.warning(
            "the ranges of the dimensions come from %d vectors only, and numbers of other "
            "vectors outside them are cut off; use the ranges of %d vectors or more",
            len(vectors),
            _FEW,
        )
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def quantize_vectors(
    vectors: NDArray[np.floating[Any]],
    precision: OutputPrecision,
    ranges: NDArray[np.floating[Any]] | None = None,
) -> NDArray[Any]:
    """Convert float vectors to another number format.

    Args:
        vectors: ``(n, d)`` float vectors.
        precision: An :data:`OutputPrecision`.
        ranges: ``(2, d)`` for int8 and uint8: the lowest and the highest number of each dimension,
            see :func:`vector_ranges`. Only vectors with equal ranges can be compared. By default
            those of ``vectors``.

    Returns:
        ``(n, d)``; ``(n, ceil(d / 8))`` for binary and ubinary.

    Raises:
        ConfigError: The precision is unknown, or the ranges have another shape or are not finite.
        DataError: Ranges are needed and there are fewer than two vectors, or a number is too large
            for float16.

    Examples:
        >>> vectors = np.array([[-1.0, 0.5, 2.0], [3.0, -0.5, 0.0]])
        >>> quantize_vectors(vectors, "int8", np.array([[-1, -1, -1], [1, 1, 1]])).tolist()
        [[-128, 63, 127], [127, -65, -1]]
        >>> quantize_vectors(vectors, "ubinary").tolist()
        [[96], [128]]
    """
    check_output_precision(precision)
    if precision == "float32":
        return vectors.astype(np.float32, copy=False)
    if precision == "float16":
        with np.errstate(over="ignore"):
            halves = vectors.astype(np.float16)
        if np.isinf(halves).any():
            raise DataError(
                "a vector has numbers above 65504, the largest of float16; scale the vectors to "
                "unit length, or use float32"
            )
        return halves
    if not needs_ranges(precision):
        bits: NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits - np.uint8(128)).view(np.int8)
    lowest, steps = _steps(vector_ranges(vectors) if ranges is None else ranges, vectors.shape[1])
    levels = np.clip(np.floor((vectors - lowest) / steps), 0, 255)
    codes: NDArray[Any] = levels if precision == "uint8" else levels - 128
    return codes.astype(_TYPES.get(precision, np.uint8))


def dequantize_vectors(
    codes: NDArray[Any],
    precision: OutputPrecision,
    dim: int,
    ranges: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float32]:
    """Convert vectors of :func:`quantize_vectors` back to floats, approximately.

    Args:
        codes: ``(n, ...)`` vectors in the precision.
        precision: Their :data:`OutputPrecision`.
        dim: Number of dimensions d.
        ranges: ``(2, d)``, those that the vectors were converted with; for int8 and uint8.

    Returns:
        ``(n, d)`` float32: for int8 and uint8 the start of each step, for bits -1 or 1.

    Raises:
        ConfigError: Ranges are needed and missing, or have another shape.

    Examples:
        >>> ranges = np.array([[0.0], [25.5]])
        >>> codes = quantize_vectors(np.array([[3.04], [9.05]]), "uint8", ranges)
        >>> dequantize_vectors(codes, "uint8", 1, ranges).round().tolist()
        [[3.0], [9.0]]
    """
    if precision.endswith("binary"):
        bits = codes.view(np.uint8) + np.uint8(128 if precision == "binary" else 0)
        return np.unpackbits(bits, axis=-1, count=dim).astype(np.float32) * 2 - 1
    if not needs_ranges(precision):
        return codes.astype(np.float32)
    if ranges is None:
        raise ConfigError(f"{precision} vectors need the ranges that they were converted with")
    lowest, steps = _steps(ranges, dim)
    offset = np.float32(128 if precision == "int8" else 0)
    return (codes.astype(np.float32) + offset) * steps + lowest


def _steps(
    ranges: NDArray[np.floating[Any]], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lowest number and the size of a step of each dimension."""
    found = np.asarray(ranges, dtype=np.float32)
    if found.shape != (2, dim) or not np.isfinite(found).all():
        raise ConfigError(
            f"ranges have the shape {found.shape}, or are not finite; give (2, {dim}): the lowest "
            "and the highest number of each dimension, from vector_ranges(vectors)"
        )
    steps = (found[1] - found[0]) / 255
    return found[0], np.where(steps == 0, np.float32(1), steps)
