"""Encode every distinct sentence once, and look vectors up by sentence."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["Embeddings", "Encoder", "embed", "unit_rows"]


class Encoder(Protocol):
    """Anything that turns n sentences into n vectors, such as a SentenceEncoder."""

    def encode(self, sentences: list[str], /) -> Any:
        """Give (n, d) numbers: an array, a tensor, or a list of vectors."""
        ...


class Embeddings:
    """The float32 vectors (m, d) of m distinct sentences."""

    def __init__(self, sentences: Sequence[str], vectors: np.ndarray):
        self._row = {sentence: row for row, sentence in enumerate(sentences)}
        self._vectors = vectors

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """The (n, d) float32 vectors of n sentences, all of which must have been encoded."""
        return self._vectors[[self._row[sentence] for sentence in sentences]]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(n, d) rows scaled to length 1, in the type they have; lengths are taken in float64."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((vectors / lengths).astype(vectors.dtype))


def embed(encoder: Encoder, sentences: Iterable[str], *, progress: bool = False) -> Embeddings:
    """Encode the distinct ones of ``sentences`` in one call.

    Args:
        encoder: its ``encode`` is called once, with a list.
        sentences: in any order; repeats are encoded once.
        progress: handed on to ``encode`` where it has an argument ``progress``.

    Raises:
        ConfigError: ``encoder`` has no method ``encode``.
        DataError: an entry is not a string.
        ModelError: ``encode`` gave another shape than (n, d), no numbers, or NaN or infinity.
    """
    if not callable(getattr(encoder, "encode", None)):
        raise ConfigError(
            f"the encoder is {type(encoder).__name__} without a method encode(); give a "
            "SentenceEncoder or another object whose encode(list of n strings) gives (n, d) numbers"
        )
    distinct = list(dict.fromkeys(checked_texts(sentences)))
    takes_progress = "progress" in inspect.signature(encoder.encode).parameters
    if progress and (takes_progress or isinstance(encoder, SentenceEncoder)):
        output: Any = encoder.encode(distinct, progress=True)  # type: ignore[call-arg]
    else:
        output = encoder.encode(distinct)
    return Embeddings(distinct, _checked(output, distinct))


def _checked(output: Any, sentences: list[str]) -> np.ndarray:
    n = len(sentences)
    if hasattr(output, "detach"):  # a torch tensor; float() because NumPy knows no bfloat16
        output = output.detach().float().cpu().numpy()
    try:
        vectors = np.asarray(output, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"encode() gave {type(output).__name__} for {n} sentences, which is no array of "
            f"numbers ({error}); it must give ({n}, d)"
        ) from None
    if vectors.ndim != 2 or len(vectors) != n or vectors.shape[1] == 0:
        raise ModelError(
            f"encode() gave shape {vectors.shape} for {n} sentences; it must give ({n}, d)"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ModelError(
            f"encode() gave NaN or infinity for {len(bad)} of {n} sentences, the first is "
            f"{sentences[bad[0]][:80]!r}; look at the model's weights, or at its precision"
        )
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero):
        raise ModelError(
            f"encode() gave a vector of zeros for {len(zero)} of {n} sentences, the first is "
            f"{sentences[zero[0]][:80]!r}; a cosine needs a direction"
        )
    return vectors
