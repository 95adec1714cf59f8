"""Tokenizing and forward passes for the batches of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.encoder import accelerator
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.forked_processes import torch_threads
from simcse_kit.encoder.forward_pass import TokenRows
from simcse_kit.encoder.inference import evaluation_mode, layers_of, vectors_of_rows
from simcse_kit.encoder.quantization.layer_cache import Precision

__all__ = ["EncoderEngine", "Engine", "Piece"]

# Tokens per batch. Larger ones would not be faster, and small requests would wait longer.
_CPU_TOKENS, _ACCELERATOR_TOKENS = 2048, 16_384
# Tokens per thread below which a batch is not divided.
_LEAST_TOKENS = 64


class Piece(NamedTuple):
    """Token ids of some texts, and how they become vectors."""

    rows: TokenRows
    options: EncodeOptions


class Engine(Protocol):
    """What the worker needs to turn texts into vectors."""

    batch_tokens: int

    def tokenize(self, texts: Sequence[str], options: EncodeOptions) -> TokenRows:
        """Convert texts to token ids."""
        ...

    def vectors(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """Compute the vectors of each piece, ``(rows, d)``."""
        ...


class EncoderEngine:
    """An encoder, in one precision.

    Args:
        encoder: Encoder.
        precision: Number format of the computation.
        normalize: Whether vectors are scaled to unit length, as those of OpenAI are; None for the
            encoder's own setting.

    Attributes:
        batch_tokens: Number of tokens per batch that suits the device.
        vocabulary: Number of token ids.

    Raises:
        ConfigError: The encoder, its device or torch does not support the precision.
    """

    def __init__(
        self, encoder: SentenceEncoder, precision: str = "fp32", normalize: bool | None = None
    ):
        self.encoder = encoder
        self._base = EncodeOptions(precision=cast(Precision, precision), normalize=normalize)
        fast = accelerator.is_accelerator(encoder.device)
        self.batch_tokens = _ACCELERATOR_TOKENS if fast else _CPU_TOKENS
        size = getattr(encoder.backbone.config, "vocab_size", None) if not encoder.engine else None
        self.vocabulary = int(size or len(encoder.tokenizer))
        self.options = lru_cache(maxsize=1024)(self._options)
        # Prepares the weights, and refuses what cannot be computed.
        warm_up = self.options()
        rows = self.tokenize(["A first sentence."], warm_up)
        self._blocks = None
        if not fast:
            with torch.inference_mode(), evaluation_mode(encoder):
                self._blocks = layers_of(encoder, rows, warm_up, many=True)
        self.vectors([Piece(rows, warm_up)])

    def _options(self, dimensions: int | None = None) -> EncodeOptions:
        """Make the options of a request.

        Args:
            dimensions: Number of first dimensions that are kept; None for all.

        Raises:
            ConfigError: The vectors have fewer dimensions.
        """
        return replace(self._base, truncate_dim=dimensions).for_model(self.encoder)

    def query_options(self, prompt: str) -> EncodeOptions:
        """Make the options of search queries, whose vectors have unit length.

        Args:
            prompt: Text in front of the queries.
        """
        return replace(self._base, prompt=prompt, normalize=True).for_model(self.encoder)

    def tokenize(self, texts: Sequence[str], options: EncodeOptions) -> TokenRows:
        """Convert texts to token ids, as ``encode`` does."""
        rows, _ = self.encoder.tokenize(texts, max_length=options.max_length, prompt=options.prompt)
        return rows

    def _shared(self, options: EncodeOptions, rows: TokenRows) -> EncodeOptions:
        """Divide a batch among the threads of a CPU.

        Several threads with a part each are faster than several threads in every operator, above
        all while other threads, such as those of the server, need the same cores.
        """
        tokens, threads = sum(map(len, rows)), torch_threads()
        if accelerator.is_accelerator(self.encoder.device) or threads == 1:
            return options
        # Parts are filled by rows times the longest row, so equal parts need some room.
        part = max(_LEAST_TOKENS, int(1.1 * tokens / threads) + 1)
        return replace(options, token_budget=part)

    def vectors(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """Compute the vectors of each piece; texts with the same prompt share forward passes.

        Args:
            pieces: Token ids and options, at least one row each.

        Returns:
            ``(rows, d)`` float32 of each piece.

        Raises:
            ModelError: A text does not fit into the memory of the device, or numbers inside the
                model are too large for fp16.
        """
        found: list[Any] = [None] * len(pieces)
        by_prompt: dict[str | None, list[int]] = {}
        for number, piece in enumerate(pieces):
            by_prompt.setdefault(piece.options.prompt, []).append(number)
        for numbers in by_prompt.values():
            rows = list(chain.from_iterable(pieces[number].rows for number in numbers))
            options = self._shared(pieces[numbers[0]].options, rows)
            raw = vectors_of_rows(self.encoder, rows, options, blocks=self._blocks)
            finished: dict[EncodeOptions, NDArray[np.float32]] = {}
            start = 0
            for number in numbers:
                options = pieces[number].options
                if options not in finished:
                    finished[options] = options.finished(raw).cpu().numpy()
                stop = start + len(pieces[number].rows)
                found[number] = finished[options][start:stop]
                start = stop
        return found
