"""How much of a batch fits into a memory budget at once.

What a token costs is measured: a real sentence is embedded and the tensors that autograd keeps for
its backward pass are counted. On a CPU the budget is that of the whole process, interpreter and
libraries included; on a GPU it is that of the tensors on it.
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

__all__ = ["ActivationCost", "MemoryPlan", "bytes_in_use", "measure_activations", "plan_memory"]

logger = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[Any]]

CHUNK_TOKENS = 2048
"""Tokens of a chunk where the budget allows: on CPUs larger ones leave the cache and gain nothing.
"""
# Gradient and AdamW's two moments; and the gradient of one more chunk, before it is added.
_COPIES_OF_WEIGHTS = 3
# Of all embeddings of the batch: raw, unit length, their gradients, and copies by view.
_COPIES_OF_EMBEDDINGS = 8
# Ids and mask in int64, as collated, with repeated views, and of the batch that is loaded ahead.
_BYTES_OF_A_PADDED_TOKEN = 64
# What a backward pass takes beside the tensors that were kept for it, and what the allocator
# cannot use.
_SLACK = 1.2
_PROBE_TOKENS = 256


@dataclass(frozen=True)
class ActivationCost:
    """Bytes that autograd keeps for the backward pass of a chunk.

    Args:
        per_token: bytes of a token.
        per_chunk: bytes whatever the number of tokens, such as weights cast by autocast.
    """

    per_token: float
    per_chunk: float

    def bytes_of(self, tokens: int) -> float:
        """Bytes that a chunk of so many tokens takes at the most."""
        return (tokens * self.per_token + self.per_chunk) * _SLACK

    def tokens(self, room: float) -> int:
        """The most tokens of a chunk that takes at most ``room`` bytes."""
        return math.floor((room / _SLACK - self.per_chunk) / self.per_token)

    def chunks(self, room: float, tokens: int) -> int:
        """The most chunks of ``tokens`` tokens that take at most ``room`` bytes together."""
        return math.floor(room / self.bytes_of(tokens))


@dataclass(frozen=True)
class MemoryPlan:
    """How to make a step within a budget.

    Attributes:
        chunk_tokens: for
            :class:`~simcse_kit.training.batching.gradient_cache.GradientCache`; None where the
            whole batch fits and the plain step will do.
        kept_tokens: tokens whose graph fits.
        peak: bytes expected at the most.
    """

    chunk_tokens: int | None
    kept_tokens: int
    peak: int


def bytes_in_use(device: torch.device) -> int:
    """Memory of this process, or of the tensors on a GPU.

    Raises:
        ConfigError: the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        raise ConfigError(
            "training.memory_budget needs to know the memory of the process, which this system "
            "does not tell; give training.chunk_tokens, such as 2048, in its place"
        ) from None
    # The highest so far; no more is to be had on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_activations(
    method: Method, batch: Batch, autocast: Autocast = nullcontext
) -> ActivationCost:
    """What a token costs, counted on the longest row of a batch, taken many times.

    The longest, because attention takes more per token in longer rows. Leaves the random numbers
    and the method as they are.
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
    """Bytes of the distinct storages that the graph of the embeddings holds on to."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in method.state_dict().values()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    threads = torch.get_num_threads()
    # The hooks hear of this thread's graph only.
    torch.set_num_threads(1)
    try:
        with autocast(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            # Held, so that no storage is freed and its address counted only once for two.
            # View 0, since a view that a momentum encoder embeds keeps nothing.
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
    """Choose the chunks of a training step; the choice is logged.

    Args:
        method: on its device, before the first step.
        sample: real rows as the collator gives them.
        budget: bytes.
        batch_size: examples in a batch.
        max_length: most tokens of a sentence.
        autocast: of the run.

    Raises:
        ConfigError: the budget is less than the method and a single sentence need; the message
            says how much that is.
    """
    sample = method.layout(sample)
    rows = batch_size * sample.shape[1]
    cost = measure_activations(method, sample, autocast)
    fixed = _fixed_bytes(method, rows, max_length)
    least = fixed + cost.bytes_of(max_length)
    if least > budget:
        raise ConfigError(
            f"training.memory_budget is {_shown(budget)} but the model, its optimizer and a batch "
            f"of {batch_size} take {_shown(fixed)} and the activations of one sentence of "
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
    # Powers of two, so that the process' size of the moment hardly ever changes the chunks, and
    # with them the dropout masks.
    chunk = min(CHUNK_TOKENS, max(max_length, 1 << (most.bit_length() - 1)))
    kept = cost.chunks(room, chunk)
    tokens = rows * int(sample.attention_mask.sum()) / math.prod(sample.shape)
    chunks = math.ceil(tokens / chunk)
    peak = fixed + cost.bytes_of(chunk) * min(kept, chunks)
    logger.info(
        "memory budget %s: gradient caching in chunks of %s tokens, about %d to a step, of which "
        "%s computed once and the others twice; up to %s is expected%s",
        _shown(budget),
        f"{chunk:,}",
        chunks,
        "all are" if kept >= chunks else "1 is" if kept == 1 else f"{kept} are",
        _shown(peak),
        "" if sample.input_ids.is_cuda else ", interpreter and libraries included",
    )
    return MemoryPlan(chunk, kept * chunk, math.ceil(peak))


def _fixed_bytes(method: Method, rows: int, max_length: int) -> int:
    """All but activations: the process, gradients, optimizer, the batch and its loss."""
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    sizes = [weight.nbytes for weight in weights]
    device = weights[0].device
    # Each thread has gradients of its own, until they are added up.
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
    """Bytes for people; rounded up where it is what to give."""
    step = 10**8 if size >= 10**9 else 10**7 if up else 10**6
    size = (math.ceil if up else round)(size / step) * step
    return f"{size / 10**9:g}GB" if size >= 10**9 else f"{size // 10**6}MB"
