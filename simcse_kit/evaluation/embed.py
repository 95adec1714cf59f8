"""Vectors of distinct sentences, each encoded once and looked up by its text."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.metrics.search import gpu_of
from simcse_kit.utils.arrays import on_host
from simcse_kit.utils.prompt_choice import DEFAULT_PROMPTS, PromptChoice, Role, encode_as

__all__ = ["Embeddings", "Encoder", "embed", "unit_rows"]


class Encoder(Protocol):
    """An object that turns n sentences into n vectors, such as a SentenceEncoder."""

    def encode(self, sentences: list[str], /) -> Any:
        """Return (n, d) numbers: an array, a tensor, or a list of vectors."""
        ...


class Embeddings:
    """The float32 vectors (m, d) of m distinct sentences.

    Args:
        sentences: the sentences.
        vectors: their vectors.
        gpu: GPU on which vectors can be compared; None for the CPU.

    Attributes:
        roles: the vectors of queries and of documents, if they have prompts of their own.
    """

    def __init__(
        self, sentences: Sequence[str], vectors: np.ndarray, gpu: torch.device | None = None
    ):
        self.gpu = gpu
        self._row = {sentence: row for row, sentence in enumerate(sentences)}
        self._vectors = vectors
        self.roles: dict[Role, Embeddings] = {}

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        dim: int = self._vectors.shape[1]
        return dim

    def truncated(self, dim: int) -> Embeddings:
        """Return the first ``dim`` dimensions of all vectors."""
        part = Embeddings((), np.ascontiguousarray(self._vectors[:, :dim]), self.gpu)
        part._row = self._row
        part.roles = {role: found.truncated(dim) for role, found in self.roles.items()}
        return part

    def of(self, role: Role) -> Embeddings:
        """Return the vectors of queries or documents; these ones if they have no own prompts."""
        return self.roles.get(role, self)

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Return the (n, d) float32 vectors of n sentences that have been encoded."""
        return self._vectors[[self._row[sentence] for sentence in sentences]]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale (n, d) rows to length 1 and keep their dtype; lengths are computed in float64."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray((vectors / lengths).astype(vectors.dtype))


def embed(
    encoder: Encoder,
    sentences: Iterable[str],
    *,
    role: Role | None = None,
    prompts: PromptChoice = DEFAULT_PROMPTS,
    progress: bool = False,
) -> Embeddings:
    """Encode distinct sentences in one call.

    Args:
        encoder: the encoder; its ``encode`` is called once, with a list.
        sentences: sentences in any order; repeated ones are encoded once.
        role: whether the sentences are queries or documents; None for neither.
        prompts: prompts in place of the encoder's own ones.
        progress: passed to ``encode`` if it has an argument ``progress``.

    Raises:
        ConfigError: ``encoder`` has no method ``encode``, or no prompt of a given name.
        DataError: an entry is not a string.
        ModelError: ``encode`` did not return (n, d) finite, non-zero vectors.
    """
    if not callable(getattr(encoder, "encode", None)):
        raise ConfigError(
            f"the encoder is {type(encoder).__name__}, which has no method encode(); give a "
            "SentenceEncoder or an object whose encode(list of n strings) returns (n, d) numbers"
        )
    distinct = list(dict.fromkeys(checked_texts(sentences)))
    takes_progress = "progress" in inspect.signature(encoder.encode).parameters
    shown = progress and (takes_progress or isinstance(encoder, SentenceEncoder))
    options = {"progress": True} if shown else {}
    output = encode_as(encoder, distinct, role, prompts, **options)
    return Embeddings(distinct, _checked(output, distinct), gpu_of(encoder))


def _checked(output: Any, sentences: list[str]) -> np.ndarray:
    n = len(sentences)
    try:
        vectors = np.asarray(on_host(output), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"encode() returned {type(output).__name__} for {n} sentences, which is not an array "
            f"of numbers ({error}); it must return ({n}, d)"
        ) from None
    if vectors.ndim != 2 or len(vectors) != n or vectors.shape[1] == 0:
        raise ModelError(
            f"encode() returned shape {vectors.shape} for {n} sentences; it must return ({n}, d)"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ModelError(
            f"encode() returned NaN or infinity for {len(bad)} of {n} sentences, the first is "
            f"{sentences[bad[0]][:80]!r}; check the model's weights, or use another precision"
        )
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero):
        raise ModelError(
            f"encode() returned a vector of zeros for {len(zero)} of {n} sentences, the first is "
            f"{sentences[zero[0]][:80]!r}; the cosine of a zero vector is undefined"
        )
    return vectors
