"""Memory plan of a training step: how much of a batch fits into a budget at once.

The memory of a token is measured: a real sentence is embedded, and the tensors that autograd keeps
for its backward pass are counted. On a CPU the budget covers the whole process, with interpreter
and libraries; on a GPU it covers the tensors on it.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch

__all__ = [
    "ActivationCost",
    "MemoryPlan",
    "bytes_in_use",
    "measure_activations",
    "plan_memory",
]

logger = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[Any]]

CHUNK_TOKENS = 2048
"""Most tokens of a chunk on a CPU: larger chunks exceed the cache and are not faster."""
ACCELERATOR_CHUNK_TOKENS = 16_384
"""Most tokens of a chunk on an accelerator, which small chunks do not keep busy."""
# The gradient and AdamW's two moments; the gradient of another chunk is counted separately.
_COPIES_OF_WEIGHTS = 3
# Copies of all embeddings of the batch: raw, unit length, their gradients, and copies by view.
_COPIES_OF_EMBEDDINGS = 8
# Ids and mask in int64: as collated, with repeated views, and for the batch that is loaded ahead.
_BYTES_OF_A_PADDED_TOKEN = 64
# Factor for temporary tensors of the backward pass and for memory that the allocator cannot use.
_SLACK = 1.2
_PROBE_TOKENS = 256


@dataclass(frozen=True)
class ActivationCost:
    """Bytes that autograd keeps for the backward pass of a chunk.

    Args:
        per_token: bytes of a token.
        per_chunk: bytes that do not depend on the number of tokens, such as weights cast by
            autocast.
    """

    per_token: float
    per_chunk: float

    def bytes_of(self, tokens: int) -> float:
        """Estimate the largest number of bytes that a chunk of ``tokens`` tokens takes."""
        return (tokens * self.per_token + self.per_chunk) * _SLACK

    def tokens(self, room: float) -> int:
        """Compute the most tokens of a chunk that takes at most ``room`` bytes."""
        return math.floor((room / _SLACK - self.per_chunk) / self.per_token)

    def chunks(self, room: float, tokens: int) -> int:
        """Compute how many chunks of ``tokens`` tokens take at most ``room`` bytes together."""
        return math.floor(room / self.bytes_of(tokens))


@dataclass(frozen=True)
class MemoryPlan:
    """A training step within a budget.

    Attributes:
        chunk_tokens: tokens of a chunk of
            :class:`~simcse_kit.training.batching.gradient_cache.GradientCache`; None if the whole
            batch fits.
        kept_tokens: number of tokens whose graph fits.
        peak: largest number of bytes expected.
    """

    chunk_tokens: int | None
    kept_tokens: int
    peak: int


def bytes_in_use(device: torch.device) -> int:
    """Measure the memory of this process, or of the tensors on an accelerator, in bytes.

    Raises:
        ConfigError: the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        raise ConfigError(
            "training.memory_budget needs the memory of the process, which this system does not "
            "report; give training.chunk_tokens, such as 2048, instead"
        ) from None
    # The highest value so far; macOS reports nothing better.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_activations(
    method: Method, batch: Batch, autocast: Autocast = nullcontext
) -> ActivationCost:
    """Measure the memory of a token on the longest row of a batch, repeated.

    In longer rows attention takes more memory per token. The random state and the method do not
    change.
    """
    input_ids, attention_mask = batch.rows()
    row = int(attention_mask.sum(dim=1).argmax())
    length = int(attention_mask[row].sum())
    ids, mask = input_ids[row : row + 1, :length], attention_mask[row : row + 1, :length]
    few = max(1, _PROBE_TOKENS // length)
    counts = [few, 2 * few]
    devices = [ids.device] if ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        small, large = (
            _kept_bytes(method, ids.repeat(rows, 1), mask.repeat(rows, 1), autocast)
            for rows in counts
        )
    per_token = max(1.0, (large - small) / (few * length))
    return ActivationCost(per_token, max(0.0, small - per_token * few * length))


def _kept_bytes(method: Method, ids: Tensor, mask: Tensor, autocast: Autocast) -> int:
    """Count the bytes of the distinct storages that the graph of the embeddings keeps."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in method.state_dict().values()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    threads = torch.get_num_threads()
    # The hooks are called only for the graph of this thread.
    torch.set_num_threads(1)
    try:
        with autocast(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            # The result stays referenced, so that no freed address is counted once for two.
            # View 0, because a view that a momentum encoder embeds keeps nothing.
            embeddings = method.embed(ids, mask, torch.zeros_like(ids[:, 0]))
    finally:
        torch.set_num_threads(threads)
    del embeddings
    return sum(kept.values())


def plan_memory(
    method: Method,
    sample: Batch,
    *,
    budget: int,
    batch_size: int,
    max_length: int,
    autocast: Autocast = nullcontext,
) -> MemoryPlan:
    """Choose the chunks of a training step, and log the choice.

    Args:
        method: the method, on its device, before the first step.
        sample: collated rows of the training text.
        budget: bytes.
        batch_size: number of examples in a batch.
        max_length: most tokens of a sentence.
        autocast: the autocast context of the run.

    Raises:
        ConfigError: the method and a single sentence need more than the budget; the message says
            how much.
    """
    sample = method.layout(sample)
    rows = batch_size * sample.shape[1]
    cost = measure_activations(method, sample, autocast)
    fixed = _fixed_bytes(method, rows, max_length)
    least = fixed + cost.bytes_of(max_length)
    if least > budget:
        raise ConfigError(
            f"training.memory_budget is {_shown(budget)} but the model, its optimizer and a batch "
            f"of {batch_size} need {_shown(fixed)} and the activations of one sentence of "
            f"{max_length} tokens {_shown(least - fixed)}; give {_shown(least, up=True)} or more, "
            "a smaller batch, or a smaller model"
        )
    room = budget - fixed
    most = cost.tokens(room)
    if rows * max_length <= most:
        peak = fixed + cost.bytes_of(rows * max_length)
        logger.info(
            "memory budget %s: a whole batch fits (up to %s), no gradient caching",
            _shown(budget),
            _shown(peak),
        )
        return MemoryPlan(None, rows * max_length, math.ceil(peak))
    # A power of two, so that small changes of the process size hardly ever change the chunk size,
    # and with it the dropout masks.
    on_cpu = sample.input_ids.device.type == "cpu"
    limit = CHUNK_TOKENS if on_cpu else ACCELERATOR_CHUNK_TOKENS
    chunk = min(limit, max(max_length, 1 << (most.bit_length() - 1)))
    kept = cost.chunks(room, chunk)
    tokens = rows * int(sample.attention_mask.sum()) / math.prod(sample.shape)
    chunks = math.ceil(tokens / chunk)
    peak = fixed + cost.bytes_of(chunk) * min(kept, chunks)
    logger.info(
        "memory budget %s: gradient caching in chunks of %s tokens, about %d per step, of which "
        "%s computed once and the others twice; the expected peak is %s%s",
        _shown(budget),
        f"{chunk:,}",
        chunks,
        "all are" if kept >= chunks else "1 is" if kept == 1 else f"{kept} are",
        _shown(peak),
        ", with interpreter and libraries" if on_cpu else "",
    )
    return MemoryPlan(chunk, kept * chunk, math.ceil(peak))


def _fixed_bytes(method: Method, rows: int, max_length: int) -> int:
    """Estimate everything except activations: process, gradients, optimizer, batch and loss."""
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    sizes = [weight.nbytes for weight in weights]
    device = weights[0].device
    # Each thread has its own gradients until they are added.
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    copies = _COPIES_OF_WEIGHTS + (threads if threads > 1 else 0)
    embeddings = rows * method.encoder.embedding_dim * 4
    return (
        bytes_in_use(device)
        + copies * sum(sizes)
        + max(sizes)
        + _COPIES_OF_EMBEDDINGS * embeddings
        + rows * max_length * _BYTES_OF_A_PADDED_TOKEN
    )


def _shown(size: float, *, up: bool = False) -> str:
    """Format bytes for messages; ``up`` rounds up, for a size that the user should give."""
    step = 10**8 if size >= 10**9 else 10**7 if up else 10**6
    size = (math.ceil if up else round)(size / step) * step
    return f"{size / 10**9:g}GB" if size >= 10**9 else f"{size // 10**6}MB"
