"""Calibration of int8 layers: ranges of the activations on sentences of the user's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from simcse_kit.encoder.batch_plan import length_sorted_batches
from simcse_kit.encoder.export.sample_sentences import SENTENCES
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block, blocks_of
from simcse_kit.encoder.packing.layout import pack_rows
from simcse_kit.encoder.packing.linear import LinearMaker, prepared
from simcse_kit.encoder.quantization.int8 import Observer, Quantizer
from simcse_kit.errors import ConfigError

__all__ = ["calibrated_blocks"]

logger = logging.getLogger(__name__)

TokenRows = Sequence[Sequence[int]]
"""Token ids of each sentence."""

# Maximum number of sentences and of their tokens. A third of them only measures the error of int8.
# Four times as many made no difference on STS-B dev.
_SAMPLE = 192
_SAMPLE_TOKENS = 8192
# If fewer sentences are given, those of the package are added.
_ENOUGH = 32
_TOKENS_PER_PASS = 1024


def calibrated_blocks(encoder: EncoderModel, rows: TokenRows, *, first_only: bool) -> list[Block]:
    """Prepare the layers of an encoder in int8, and log how much the vectors change.

    Args:
        encoder: Encoder in evaluation mode, on a CPU.
        rows: Token ids of the sentences to encode.
        first_only: Whether the last layer is computed for the first token of each row only.

    Raises:
        ConfigError: The architecture is not supported.
    """

    def blocks(make: LinearMaker) -> list[Block]:
        made = blocks_of(encoder.backbone, make, first_only=first_only)
        if made is None or not encoder.batching.packed:
            kind = encoder.backbone.config.model_type
            raise ConfigError(
                f"precision 'int8' is not supported for {kind}; use 'fp32' or 'bf16', or quantize "
                "the model with: simcse export MODEL --format openvino --int8 --calibration FILE "
                "--output DIR"
            )
        return made

    seen = Observer()
    observed = blocks(seen.make)
    pool = list(dict.fromkeys(map(tuple, rows)))
    if few := len(pool) < _ENOUGH:
        pool = list(dict.fromkeys([*pool, *map(tuple, encoder.tokenize(SENTENCES)[0])]))
    sample = _spread(pool)
    held_out = sample[1::3]
    calibration = [row for number, row in enumerate(sample) if number % 3 != 1]
    for _ in _vectors(encoder, calibration, observed):
        pass
    quantized = blocks(Quantizer(seen).make)
    # The first call corrects the biases, so it gets all tokens of the calibration at once.
    tokens, layout = pack_rows(calibration, encoder.device)
    encoder.forward_packed(tokens, layout, quantized)
    pairs = zip(
        _vectors(encoder, held_out, blocks(prepared)),
        _vectors(encoder, held_out, quantized),
        strict=True,
    )
    cosines = torch.cat([cosine_similarity(exact, rough) for exact, rough in pairs])
    logger.info(
        "precision int8: calibrated on %d sentences%s; cosine of int8 and fp32 vectors over %d "
        "others: mean %.4f, lowest %.4f",
        len(calibration),
        " (few were given, so some are the package's own)" if few else "",
        len(held_out),
        float(cosines.mean()),
        float(cosines.min()),
    )
    return quantized


def _spread(rows: TokenRows) -> TokenRows:
    """Sample rows evenly over their lengths; the order of the rows does not matter."""
    ordered = sorted(rows, key=lambda row: (len(row), row))
    mean = sum(map(len, ordered)) / len(ordered)
    count = min(len(ordered), max(3, min(_SAMPLE, int(_SAMPLE_TOKENS / mean))))
    last = len(ordered) - 1
    return [ordered[round(place * last / (count - 1))] for place in range(count)]


def _vectors(encoder: EncoderModel, rows: TokenRows, blocks: list[Block]) -> Iterator[Tensor]:
    """Compute the vectors ``(R, d)`` of one batch after another."""
    lengths = [len(row) for row in rows]
    for batch in length_sorted_batches(lengths, token_budget=_TOKENS_PER_PASS):
        tokens, layout = pack_rows([rows[number] for number in batch], encoder.device)
        yield encoder.forward_packed(tokens, layout, blocks)
