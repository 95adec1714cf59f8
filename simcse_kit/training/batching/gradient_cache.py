"""Gradient caching: a batch of any size in the memory of a part of it (arXiv 2101.06983).

The gradient of a loss over a whole batch needs, of the other rows, only their embeddings. So the
rows are embedded in chunks without a graph; the loss of all embeddings gives the gradient of each;
then every chunk is embedded once more, with its graph, and takes its part of that gradient back
through the encoder. Each chunk draws from a seed of its own, so that the dropout masks of the
second time are those that the loss has seen.

For the same reason several processes can share a batch: each embeds some of the chunks, all of them
see all embeddings, and each takes its chunks' part of the gradient of the whole loss back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simcse_kit.encoder.batch_plan import length_sorted_batches
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.utils.distributed import ALONE, Processes

__all__ = ["Chunk", "GradientCache", "chunks_of", "shares_of"]


@dataclass(frozen=True)
class Chunk:
    """Rows of a batch that are embedded together.

    Args:
        rows: (r,) int64, row numbers, ascending.
        longest: tokens of the longest of them.
    """

    rows: Tensor
    longest: int

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return len(self.rows) * self.longest


def chunks_of(attention_mask: Tensor, tokens: int) -> list[Chunk]:
    """Rows of like length together, longest first, at most ``tokens`` tokens a chunk.

    Args:
        attention_mask: (R, L), 0 at padding.
        tokens: most tokens of a chunk, padding included; a single longer row goes alone.

    Returns:
        Every row once. A chunk of the whole batch is the batch as it was.
    """
    lengths = attention_mask.sum(dim=1).tolist()
    return [
        Chunk(torch.tensor(sorted(rows), device=attention_mask.device), lengths[rows[0]])
        for rows in length_sorted_batches(lengths, token_budget=tokens)
    ]


def shares_of(attention_mask: Tensor, parts: int) -> list[Chunk]:
    """The rows dealt out to ``parts`` chunks, about as many tokens to each; fewer where there are
    fewer rows."""
    lengths = attention_mask.sum(dim=1).tolist()
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    dealt = [order[part::parts] for part in range(min(parts, len(order)))]
    device = attention_mask.device
    return [Chunk(torch.tensor(sorted(rows), device=device), lengths[rows[0]]) for rows in dealt]


class GradientCache:
    """The training step of a method, with the rows in chunks, in one process or several.

    ``cache(method, batch).loss.backward()`` leaves the gradients that
    ``method(**batch).loss.backward()`` leaves, but for the order of floating-point sums, and but
    for other random numbers: dropout masks are drawn chunk by chunk. They depend on
    ``chunk_tokens``, not on ``kept_tokens``, nor on the number of processes.

    With several processes each must be given the same batch and have the same random numbers, and
    :meth:`~simcse_kit.utils.distributed.Processes.average_gradients` makes of what ``backward``
    leaves the gradient of the one loss of the whole batch: the parameters of the encoder have got
    ``size`` times their chunks' part of it, those that act inside the
    loss the whole of it on each process.

    The graph of the first chunks is kept from the first pass, as far as ``kept_tokens`` goes; only
    the chunks beyond are embedded twice. The memory of activations is that of
    ``max(chunk_tokens, kept_tokens)`` tokens; all else is O(B·V·d).

    Args:
        chunk_tokens: tokens of a chunk; a single longer row is a chunk by itself. None: one chunk
            for each process.
        kept_tokens: tokens whose graph may be kept at once. The first chunk always is.
        autocast: entered anew around each chunk and around the loss.
        processes: those that share the chunks.
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
        """The loss of a batch, whose ``backward`` embeds the chunks once more.

        Where gradients are disabled it is the loss alone, still in chunks.
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
            # Anew for each chunk, since the context keeps the weights it has cast until it ends:
            # those cast without a graph must not serve where one is needed.
            with self._autocast():
                return method.embed(ids, mask, views[chunk.rows])

        return embed


class _Joined(torch.autograd.Function):
    """Identity of the embeddings that hands their gradient to a function."""

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
    """Both passes over the chunks of one batch that are this process's own."""

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
        # The embeddings, with their graph, of own chunks that need not be embedded twice.
        self._graphs: dict[int, Tensor] = {}

    def embed(self) -> Tensor:
        """(R, d) without a graph, of all rows, whoever embedded them."""
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
        if embeddings is None:  # nothing is left for this process; it must know the width
            with torch.no_grad():
                part = self._embed_seeded(0)
            embeddings = part.new_zeros((self._rows, part.shape[1]))
        return self._processes.total(embeddings)

    def backward(self, gradient: Tensor) -> None:
        """Take the gradient of the embeddings (R, d) through the own chunks, in their order."""
        # To be averaged over the processes, of which one alone has this part.
        gradient = gradient * self._processes.size if self._processes.size > 1 else gradient
        for number in self._own:
            part = self._graphs.pop(number, None)
            if part is None:
                # autograd disables gradients around a backward function.
                with torch.enable_grad():
                    part = self._embed_seeded(number)
            # A chunk may hold nothing but rows of a momentum encoder.
            if part.requires_grad:
                torch.autograd.backward(part, gradient[self._chunks[number].rows])
            del part

    def _embed_seeded(self, number: int) -> Tensor:
        chunk = self._chunks[number]
        device = chunk.rows.device
        # The steps to come must not draw these numbers again.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed + number)
            return self._embed(chunk)
