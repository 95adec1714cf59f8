"""Encoding of shards: the same vectors and files wherever a shard is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.finalize import CONTINUE
from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.ranges import ranges_of_job
from simcse_kit.bulk.shard_log import Shard, text_checksum
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.stream import stream_vectors
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ModelError
from simcse_kit.metrics.vector_precision import needs_ranges, quantize_vectors, vector_dtype
from simcse_kit.utils.files import replacement, sha256_of

__all__ = ["CALIBRATION", "SHARD_CHARACTERS", "ShardEncoder", "TextShard"]

SHARD_CHARACTERS = 64_000_000
"""Number of characters after which a shard ends; sentences may be a million characters long."""

CALIBRATION = 4096
"""Number of sentences from which the ranges of int8 vectors are found."""


@dataclass(frozen=True)
class TextShard:
    """The sentences of one shard.

    Attributes:
        number: Number of the shard, from 0.
        first_row: Row of the first sentence in the whole output, from 0.
        texts: The sentences.
    """

    number: int
    first_row: int
    texts: list[str]


class ShardEncoder:
    """Encoder of the shards of a job, which writes their files into the folder of the job.

    Args:
        encoder: Encoder, loaded from a folder or by its name.
        output: Destination of the vectors.
        options: How sentences become vectors, with the text of the prompt.
        chunk: Maximum number of sentences held at a time.
    """

    def __init__(
        self, encoder: SentenceEncoder, output: OutputSpec, options: EncodeOptions, *, chunk: int
    ):
        self._encoder = encoder
        self._output = output
        self._options = options
        self._chunk = chunk
        self._dim = options.dimensions(encoder)
        self._format = FORMATS[output.format]
        self._ranges: NDArray[np.float32] | None = None

    def find_ranges(self, first: Callable[[], list[str]]) -> None:
        """Find the ranges of int8 vectors, if the job needs them.

        Args:
            first: Function that returns the first :data:`CALIBRATION` sentences of the text.

        Raises:
            ConfigError: The ranges cannot be read or written.
            DataError: The text has fewer than two sentences.
        """
        if not needs_ranges(self._output.precision):
            return
        texts = first()

        def sample() -> NDArray[np.float32]:
            options = replace(self._options, progress=False)
            parts = stream_vectors(self._encoder, [(None, texts)], options)
            return np.concatenate([np.empty((0, self._dim), np.float32), *(v for _, v in parts)])

        self.calibrate(texts[: self._output.shard_rows])
        self._ranges = ranges_of_job(self._output, self._dim, sample)

    def calibrate(self, texts: list[str]) -> None:
        """Find the ranges of int8 layers, if the encoder computes in int8.

        They come from the first sentences that an encoder sees. Those must be the first of the text
        in every process, or shards would differ.

        Args:
            texts: Sentences of the first shard.
        """
        if self._options.precision == "int8":
            first = texts[: self._chunk]
            self._encoder.encode(first, precision="int8", prompt=self._options.prompt)

    def encode(
        self, shards: Iterable[TextShard], *, total: int | None, counts: TokenCounts
    ) -> Iterator[Shard]:
        """Encode and write shards.

        Args:
            shards: Shards, read as needed.
            total: Number of their sentences, if known, for the progress bar.
            counts: Statistics to which those of the sentences are added.

        Yields:
            The log entry of each shard, once its file has its final name.

        Raises:
            ConfigError: An option is not allowed, or a file cannot be written.
            ModelError: A vector is not finite.
        """
        stream = stream_vectors(
            self._encoder,
            ((shard, shard.texts) for shard in shards),
            self._options,
            chunk=self._chunk,
            total=total,
            counts=counts,
        )
        for shard, first in stream:
            yield self._write(shard, chain([first], (vectors for _, vectors in stream)))

    def _write(self, shard: TextShard, vectors: Iterator[np.ndarray]) -> Shard:
        """Write a shard, whose vectors are the next ones of ``vectors``."""
        name = f"part-{shard.number:06d}{self._format.suffix}"
        rows, precision = len(shard.texts), self._output.precision
        with replacement(self._output.folder / name, remedy=CONTINUE) as path:
            with self._format.writer(path, rows, vector_dtype(precision, self._dim)) as write:
                row = 0
                while row < rows:
                    part = next(vectors)
                    self._check_finite(part, shard.first_row + row)
                    texts = shard.texts[row : row + len(part)]
                    write(texts, quantize_vectors(part, precision, self._ranges))
                    row += len(part)
            size, digest = path.stat().st_size, sha256_of(path)
        return Shard(shard.number, name, rows, size, text_checksum(shard.texts), digest)

    def _check_finite(self, vectors: np.ndarray, row: int) -> None:
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"the vector of sentence {row + int(bad[0]) + 1:,} is not finite: the weights of "
                f"{self._encoder.source} contain NaN, or this precision is not supported for the "
                "model; load another model, or take --precision fp32"
            )
