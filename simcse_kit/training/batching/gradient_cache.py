"""Gradient caching: a batch of any size in the memory of a part of it (arXiv 2101.06983).

The gradient of a loss over a whole batch depends on the other rows only through their embeddings.
The rows are first embedded in chunks without a graph; the loss of all embeddings gives the gradient
of each embedding; then every chunk is embedded again, with its graph, and its part of that gradient
is propagated through the encoder. Each chunk has its own random seed, so that the second pass draws
the same dropout masks as the first.

In the same way several processes share a batch: each embeds some of the chunks, all of them get
all embeddings, and each propagates the gradient of its own chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from simcse_kit.encoder.batch_plan import length_sorted_batches
from simcse_kit.encoder.row_lengths import lengths_of, remember_lengths
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.utils.distributed import ALONE, Processes
from simcse_kit.utils.host_copies import on_both, send_known

__all__ = ["Chunk", "GradientCache", "chunks_of", "shares_of"]


@dataclass(frozen=True)
class Chunk:
    """Rows of a batch that are embedded together.

    Args:
        rows: (r,) int64, row numbers, ascending.
        lengths: (r,) int64 on the host, number of tokens of each row.
    """

    rows: Tensor
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[int], lengths: Sequence[int], device: torch.device) -> Chunk:
        """Make a chunk of rows in any order, from the lengths of all rows of the batch."""
        ordered = sorted(rows)
        numbers = send_known(torch.tensor(ordered), device)
        return cls(numbers, np.array([lengths[row] for row in ordered], dtype=np.int64))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return len(self.rows) * self.longest


def chunks_of(attention_mask: Tensor, tokens: int) -> list[Chunk]:
    """Group rows of similar length, longest first, into chunks of at most ``tokens`` tokens.

    Args:
        attention_mask: (R, L), 0 at padding.
        tokens: most tokens of a chunk, padding included; a single longer row is a chunk of its own.

    Returns:
        Chunks that contain every row once. A chunk of all rows has them in their order.
    """
    lengths = lengths_of(attention_mask)
    return [
        Chunk.of(rows, lengths, attention_mask.device)
        for rows in length_sorted_batches(lengths, token_budget=tokens)
    ]


def shares_of(attention_mask: Tensor, parts: int) -> list[Chunk]:
    """Distribute the rows over at most ``parts`` chunks with about equally many tokens."""
    lengths = lengths_of(attention_mask)
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    dealt = [order[part::parts] for part in range(min(parts, len(order)))]
    return [Chunk.of(rows, lengths, attention_mask.device) for rows in dealt]


class GradientCache:
    """Training step of a method with the rows in chunks, in one process or several.

    ``cache(method, batch).loss.backward()`` computes the same gradients as
    ``method(**batch).loss.backward()``, except for the order of floating-point sums and for the
    random numbers: dropout masks are drawn chunk by chunk. They depend on ``chunk_tokens``, but
    neither on ``kept_tokens`` nor on the number of processes.

    With several processes, each must get the same batch and have the same random state.
    :meth:`~simcse_kit.utils.distributed.Processes.average_gradients` then turns the result of
    ``backward`` into the gradient of the loss of the whole batch: encoder parameters hold ``size``
    times the part of their chunks, and parameters inside the loss hold the whole gradient in each
    process.

    The graphs of the first chunks, up to ``kept_tokens``, are kept from the first pass; only the
    other chunks are embedded twice. Activations take the memory of
    ``max(chunk_tokens, kept_tokens)`` tokens, everything else is O(B·V·d).

    Args:
        chunk_tokens: most tokens of a chunk; a single longer row is a chunk of its own. None: one
            chunk for each process.
        kept_tokens: most tokens whose graph is kept at once; the first chunk always is.
        autocast: context entered around each chunk and around the loss.
        processes: the processes that share the chunks.
    """

    def __init__(
        self,
        chunk_tokens: int | None,
        *,
        kept_tokens: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        processes: Processes = ALONE,
    ):
        self._chunk_tokens = chunk_tokens
        self._kept_tokens = kept_tokens
        self._autocast = autocast
        self._processes = processes

    def __call__(self, method: Method, batch: Batch) -> MethodOutput:
        """Compute the loss of a batch in chunks; its ``backward`` embeds the chunks again.

        If gradients are disabled, only the loss is computed.
        """
        batch = method.layout(batch)
        mask = batch.rows()[1]
        if self._chunk_tokens is None:
            chunks = shares_of(mask, self._processes.size)
        else:
            chunks = chunks_of(mask, self._chunk_tokens)
        embed = self._embedding(method, batch)
        step = _Step(embed, chunks, len(mask), self._kept_tokens, self._processes)
        embeddings = step.embed()
        if torch.is_grad_enabled():
            join = torch.empty(0, device=embeddings.device, requires_grad=True)
            embeddings = _Joined.apply(join, embeddings, step.backward)  # type: ignore[no-untyped-call]
        with self._autocast():
            return method.loss(embeddings.view(*batch.shape, -1), batch)

    def _embedding(self, method: Method, batch: Batch) -> Callable[[Chunk], Tensor]:
        input_ids, attention_mask = batch.rows()
        views = batch.view_numbers()

        def embed(chunk: Chunk) -> Tensor:
            ids = input_ids[chunk.rows, : chunk.longest]
            mask = attention_mask[chunk.rows, : chunk.longest]
            remember_lengths(mask, chunk.lengths)
            numbers = on_both(torch.Tensor.__getitem__, views, chunk.rows)
            # Entered for each chunk, because the context caches cast weights until it ends, and
            # those cast without a graph must not be used where a graph is needed.
            with self._autocast():
                return method.embed(ids, mask, numbers)

        return embed


class _Joined(torch.autograd.Function):
    """Identity of the embeddings that passes their gradient to a function."""

    @staticmethod
    def forward(ctx: Any, join: Tensor, embeddings: Tensor, take: Any) -> Tensor:  # noqa: ARG004
        # `join` requires a gradient, which the embeddings do not.
        ctx.take = take
        return embeddings.view_as(embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.take(gradient)
        return None, None, None


class _Step:
    """Both passes over the chunks of one batch that belong to this process."""

    def __init__(
        self,
        embed: Callable[[Chunk], Tensor],
        chunks: Sequence[Chunk],
        rows: int,
        kept_tokens: int,
        processes: Processes,
    ):
        self._embed = embed
        self._chunks = chunks
        self._rows = rows
        self._kept_tokens = kept_tokens
        self._processes = processes
        self._own = range(processes.rank, len(chunks), processes.size)
        # The only number drawn from the state that all processes share.
        self._seed = int(torch.randint(1 << 62, ()))
        # Embeddings, with their graph, of own chunks that need not be embedded twice.
        self._graphs: dict[int, Tensor] = {}

    def embed(self) -> Tensor:
        """Compute the embeddings of all rows in all processes, (R, d), without a graph."""
        embeddings: Tensor | None = None
        trains = torch.is_grad_enabled()
        room = max(self._kept_tokens, self._chunks[self._own[0]].tokens if self._own else 0)
        for number in self._own:
            chunk = self._chunks[number]
            room -= chunk.tokens
            with torch.set_grad_enabled(trains and room >= 0):
                part = self._embed_seeded(number)
            if trains and room >= 0:
                self._graphs[number] = part
            if embeddings is None:
                embeddings = part.new_zeros((self._rows, part.shape[1]))
            embeddings[chunk.rows] = part.detach()
        if embeddings is None:  # this process has no chunk, but needs the dimension
            with torch.no_grad():
                part = self._embed_seeded(0)
            embeddings = part.new_zeros((self._rows, part.shape[1]))
        return self._processes.all_reduce_sum(embeddings)

    def backward(self, gradient: Tensor) -> None:
        """Propagate the gradient of the embeddings, (R, d), through the own chunks in order."""
        # It will be averaged over the processes, and only this one has these chunks.
        gradient = gradient * self._processes.size if self._processes.size > 1 else gradient
        for number in self._own:
            part = self._graphs.pop(number, None)
            if part is None:
                # autograd disables gradients around a backward function.
                with torch.enable_grad():
                    part = self._embed_seeded(number)
            # A chunk may contain only rows of a momentum encoder.
            if part.requires_grad:
                torch.autograd.backward(part, gradient[self._chunks[number].rows])
            del part

    def _embed_seeded(self, number: int) -> Tensor:
        chunk = self._chunks[number]
        device = chunk.rows.device
        # Later steps must not draw these numbers again. The random state of a GPU is a seed and a
        # counter on the host, so that reading and setting it waits for nothing.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed + number)
            return self._embed(chunk)
