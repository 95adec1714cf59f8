"""Encoding of sentences and their similarity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.encode_options import EncodeKeywords, EncodeOptions
from simcse_kit.encoder.inputs import checked_texts, texts_one_by_one
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.prompts import role_prompt
from simcse_kit.encoder.similarity import Side, cosines, given_vectors
from simcse_kit.encoder.stream import CHUNK, stream_vectors, vectors_of_texts
from simcse_kit.errors import ConfigError
from simcse_kit.metrics.vector_precision import (
    OutputPrecision,
    check_output_precision,
    quantize_vectors,
)
from simcse_kit.utils.prompt_choice import Role

__all__ = ["TextEncoder"]


class TextEncoder(EncoderModel):
    """The methods of a sentence encoder that take sentences."""

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["numpy"] = ...,
        output_precision: Literal["float32"] = ...,
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["numpy"] = ...,
        output_precision: OutputPrecision,
        ranges: NDArray[np.floating[Any]] | None = ...,
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[Any]: ...

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["torch"],
        output_precision: OutputPrecision = ...,
        ranges: NDArray[np.floating[Any]] | None = ...,
        **options: Unpack[EncodeKeywords],
    ) -> Tensor: ...

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["numpy", "torch"] = "numpy",
        output_precision: OutputPrecision = "float32",
        ranges: NDArray[np.floating[Any]] | None = None,
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[Any] | Tensor:
        """Compute the vectors of sentences, in their order.

        Each distinct sentence is computed once; batches are made of sentences of similar length.
        Log lines report how many sentences were truncated, how many tokens are unknown to the
        vocabulary, and which sentences became equal; see
        :class:`~simcse_kit.encoder.token_counts.TokenCounts`.

        Args:
            sentences: One sentence or many.
            to: ``"numpy"`` or ``"torch"`` (on the device of the encoder).
            output_precision: Number format of the vectors, one of
                :data:`~simcse_kit.metrics.vector_precision.OutputPrecision`: ``"float32"``,
                ``"float16"``, ``"int8"``, ``"uint8"``, ``"binary"`` or ``"ubinary"``. The
                computation is not affected; see ``precision``.
            ranges: ``(2, d)``, the lowest and the highest number of each dimension, for int8 and
                uint8; by default those of the vectors of this call. Vectors of several calls can be
                compared only if their ranges are equal: see
                :func:`~simcse_kit.metrics.vector_precision.vector_ranges`.
            batch_size (int | None): Maximum number of sentences per forward pass; by default only
                the token budget counts.
            token_budget (int | None): Maximum number of tokens per forward pass, padding included
                where there is any; by default one that suits the CPU, or the free memory of a GPU.
                If a GPU runs out of memory, the budget is halved and a log line says so.
            normalize (bool | None): Whether vectors are scaled to unit length; by default
                :attr:`normalize`.
            max_length (int | None): Maximum number of tokens per sentence; by default
                :attr:`max_length`.
            truncate_dim (int | None): Number of first dimensions that are kept, for encoders that
                were trained for it (Matryoshka); by default all. Vectors are scaled to unit length
                after the truncation if ``normalize`` is given, and before it by default.
            prompt (str | None): Text put in front of every sentence; by default :attr:`prompt`.
            prompt_name (str | None): Name of one of :attr:`prompts`, instead of its text.
            precision (str): Number format of the computation: ``"fp32"``, ``"bf16"``, ``"fp16"`` or
                ``"int8"``. On a GPU, bf16 and fp16 use a copy of the transformer in this format,
                which stays there until the weights change. On a CPU, bf16 and int8 apply to the
                linear maps, and fp16 is refused. If bf16 is not faster there, a log line says so
                and fp32 is used. int8 runs on CPUs only; a log line reports the cosine between its
                vectors and those in fp32. Its ranges come from the sentences of the first call and
                are kept until the weights change, so that the vectors of all calls are comparable.
            progress (bool): Whether a progress bar is shown on a terminal or in a notebook.

        Returns:
            ``(n, d)``; ``(d,)`` for a single string. d is :attr:`embedding_dim`, or
            ``truncate_dim``; with one bit per dimension it is divided by 8.

        Raises:
            DataError: An entry is not a string, or int8 vectors need ranges.
            ConfigError: A length, size, budget or number of dimensions is not allowed, the encoder
                has no prompt of this name, or the encoder, its device or torch does not support the
                precision.
            ModelError: A sentence does not fit into the memory of the GPU, or numbers inside the
                model are too large for fp16.

        Examples:
            >>> from simcse_kit import SentenceEncoder
            >>> encoder = SentenceEncoder.load("mini")
            >>> encoder.encode("A dog runs.").shape
            (256,)
            >>> vectors = encoder.encode(["A dog.", "Prices rose."], to="torch", normalize=True)
            >>> vectors.norm(dim=1).round(decimals=3).tolist()
            [1.0, 1.0]
            >>> encoder.encode("Where is Rome?", prompt="query: ", truncate_dim=64).shape
            (64,)
            >>> encoder.encode(["A dog.", "Prices rose."], output_precision="ubinary").shape
            (2, 32)
        """
        check_output_precision(output_precision)
        if not isinstance(to, str) or to not in ("numpy", "torch"):
            raise ConfigError(f"encode(to={to!r}); allowed: 'numpy', 'torch'")
        chosen = EncodeOptions(**options).for_model(self)
        texts = checked_texts(sentences)
        vectors = vectors_of_texts(self, texts, chosen, to_host=to == "numpy")
        if output_precision != "float32":
            array = quantize_vectors(vectors.cpu().numpy(), output_precision, ranges)
            vectors = torch.from_numpy(array).to(vectors.device)
        if isinstance(sentences, str):
            vectors = vectors[0]
        return vectors if to == "torch" else vectors.cpu().numpy()

    def encode_query(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """Compute the vectors of queries: :meth:`encode` with the prompt named ``query``.

        Without a prompt of this name there is none, not even the default one, as in
        sentence-transformers.

        Args:
            sentences: One query or many.
            **options: All options of :meth:`encode`; ``prompt`` and ``prompt_name`` replace the
                prompt.

        Returns:
            As :meth:`encode`.

        Examples:
            >>> from simcse_kit import SentenceEncoder
            >>> encoder = SentenceEncoder.load("mini")
            >>> encoder.prompts = {"query": "query: "}
            >>> vector = encoder.encode("query: Where is Rome?")
            >>> bool((encoder.encode_query("Where is Rome?") == vector).all())
            True
        """
        return self.encode(sentences, **self._with_role_prompt("query", options))

    def encode_document(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """Compute the vectors of documents: :meth:`encode` with the prompt named ``document``.

        Args:
            sentences: One document or many.
            **options: As for :meth:`encode_query`.

        Returns:
            As :meth:`encode`.
        """
        return self.encode(sentences, **self._with_role_prompt("document", options))

    def _with_role_prompt(self, role: Role, options: dict[str, Any]) -> dict[str, Any]:
        given = options.get("prompt") is not None or options.get("prompt_name") is not None
        return options if given else {**options, "prompt": role_prompt(self, role)}

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        chunk: int = CHUNK,
        total: int | None = None,
        **options: Unpack[EncodeKeywords],
    ) -> Iterator[NDArray[np.float32]]:
        """Compute the vectors of any number of sentences in bounded memory.

        One chunk is held at a time, two on a GPU; the next one is read ahead and tokenized
        meanwhile. Each distinct sentence of a chunk is computed once.

        Args:
            sentences: Sentences, read once, in the thread that asks for the vectors.
            chunk: Maximum number of sentences per chunk; very long sentences make smaller chunks.
            total: Number of sentences, if known, for the time left in the progress bar.
            **options: The options of :meth:`encode`, except ``to``, ``output_precision`` and
                ``ranges``.

        Yields:
            ``(rows, d)`` float32 of the next sentences, in order.

        Raises:
            DataError: An entry is not a string; raised when the entry is read, one chunk ahead, or
                two on a GPU.
            ConfigError: As for :meth:`encode`; raised before anything is read, unless the
                architecture does not support the precision.

        Examples:
            >>> from simcse_kit import SentenceEncoder
            >>> encoder = SentenceEncoder.load("mini")
            >>> sentences = (f"This is sentence {number}." for number in range(5))
            >>> [vectors.shape for vectors in encoder.encode_stream(sentences, chunk=2)]
            [(2, 256), (2, 256), (1, 256)]
        """
        groups = [(None, texts_one_by_one(sentences))]
        stream = stream_vectors(self, groups, EncodeOptions(**options), chunk=chunk, total=total)
        return (vectors for _, vectors in stream)

    def similarity(self, a: Side, b: Side) -> NDArray[np.float32]:
        """Compute the cosine similarity of every pair, always as a matrix.

        Args:
            a: One sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``.
            b: One sentence, m sentences, or their vectors ``(m, d)`` or ``(d,)``.

        Returns:
            ``(n, m)`` float32; ``(1, 1)`` for two single sentences. The cosine of a zero vector is
            0.

        Raises:
            DataError: An entry is not a string, or the vectors have different dimensions or hold
                NaN or infinity.

        Examples:
            >>> from simcse_kit import SentenceEncoder
            >>> encoder = SentenceEncoder.load("mini")
            >>> encoder.similarity("A dog runs.", ["A puppy is running.", "Prices rose."]).shape
            (1, 2)
        """
        left, right = given_vectors(a), given_vectors(b)
        if left is None and right is None:
            # One call, which logs sentences of the two sides that get equal tokens.
            texts = checked_texts(a)
            both = self.encode(texts + checked_texts(b), to="torch").cpu()
            return cosines(both[: len(texts)], both[len(texts) :])
        if left is None:
            left = self.encode(checked_texts(a), to="torch").cpu()
        if right is None:
            right = self.encode(checked_texts(b), to="torch").cpu()
        return cosines(left, right)
