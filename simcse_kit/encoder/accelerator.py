"""Accelerators, such as GPUs: tokens that fit into a forward pass, and running out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.pooling import LAYER_POOLINGS
from simcse_kit.errors import ModelError

__all__ = [
    "FEWEST_TOKENS",
    "does_not_fit",
    "empty_cache",
    "is_accelerator",
    "is_out_of_memory",
    "memory_errors",
    "token_budget",
    "tokens_that_fit",
]

FEWEST_TOKENS = 8 * 1024
"""Default token budget on a card without much free memory."""
# More tokens gain nothing, and the card would wait while the host prepares the first batch.
_MOST_TOKENS = 256 * 1024
# For accelerators that do not report their free memory.
_UNKNOWN_MEMORY_TOKENS = 32 * 1024
# Share of the free memory that a forward pass may use; other programs may need the rest.
_SHARE = 0.5
# Numbers per token that exist at the same time in a layer, in multiples of the hidden size and of
# the size of the feed-forward layer (with a gate: the gate, the other half and their product).
_HIDDEN_SIZES, _INNER_SIZES = 8, 3


def is_accelerator(device: torch.device) -> bool:
    """Whether the host can queue work on a device without waiting for it: on all but the CPU."""
    return device.type != "cpu"


def token_budget(model: EncoderModel) -> int:
    """Choose the number of tokens per forward pass on an accelerator.

    On CUDA the number depends on the free memory, elsewhere it is fixed.

    Args:
        model: Encoder on an accelerator.
    """
    device = model.device
    if device.type != "cuda":
        return _UNKNOWN_MEMORY_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    # torch keeps freed memory for later tensors.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return tokens_that_fit(model, free)


def tokens_that_fit(model: EncoderModel, free: int) -> int:
    """Compute how many tokens a forward pass without gradients can have.

    Args:
        model: Encoder.
        free: Free memory in bytes.

    Returns:
        A multiple of 1024 from 8,192 to 262,144.

    Examples:
        >>> from simcse_kit import SentenceEncoder
        >>> encoder = SentenceEncoder.load("mini")
        >>> [tokens_that_fit(encoder, gigabytes * 10**9) for gigabytes in (0, 1, 80)]
        [8192, 21504, 262144]
    """
    config = model.backbone.config
    hidden = int(config.hidden_size)
    inner = max(
        value
        for name in ("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "n_inner", "hidden_size")
        if isinstance(value := getattr(config, name, None), int)
    )
    number = next(model.backbone.parameters()).element_size()
    per_token = number * (_HIDDEN_SIZES * hidden + _INNER_SIZES * inner)
    kept = int(config.num_hidden_layers) + 1 if model.pooling in LAYER_POOLINGS else 1
    per_token += (number + 4) * kept * hidden  # states that are pooled, and their float32 copies
    tokens = int(_SHARE * free / per_token) // 1024 * 1024
    return max(FEWEST_TOKENS, min(tokens, _MOST_TOKENS))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an accelerator has too little free memory."""
    # MPS and the driver of CUDA raise a RuntimeError, and so does cuBLAS.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    )


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch keeps for later tensors to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def does_not_fit(what: str, device: torch.device) -> ModelError:
    """Make the error about something that does not fit into the memory of a device.

    Args:
        what: Subject of the message, such as ``a sentence of 512 tokens``.
        device: Accelerator.
    """
    return ModelError(
        f"{what} does not fit into the free memory of {device}; end other programs that use the "
        "device, set a smaller max_length, take precision 'bf16' or 'fp16', or load the encoder "
        "on the CPU (device 'cpu')"
    )


@contextmanager
def memory_errors(what: str, device: torch.device) -> Iterator[None]:
    """Turn running out of memory inside the block into an error with a remedy.

    Args:
        what: See :func:`does_not_fit`.
        device: Accelerator.

    Raises:
        ModelError: The device has too little free memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise does_not_fit(what, device) from error
