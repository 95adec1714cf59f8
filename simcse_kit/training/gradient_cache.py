"""Gradient caching: a batch of any size in the memory of a part of it (arXiv 2101.06983).

The gradient of a loss over a whole batch needs, of the other rows, only their embeddings. So the
rows are embedded in chunks without a graph; the loss of all embeddings gives the gradient of each;
then every chunk is embedded once more, with its graph, and takes its part of that gradient back
through the encoder. The random numbers are put back for the second time, so that the dropout masks
are those that the loss has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simcse_kit.encoder.batching import length_sorted_batches
from simcse_kit.methods.base import Method, MethodOutput
from simcse_kit.methods.batch import Batch

__all__ = ["Chunk", "GradientCache", "chunks_of"]


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


class GradientCache:
    """The training step of a method, with the rows in chunks.

    ``cache(method, batch).loss.backward()`` leaves the gradients that
    ``method(**batch).loss.backward()`` leaves, but for the order of floating-point sums, and but
    for the dropout masks: those are drawn chunk by chunk. They depend on ``chunk_tokens``, not on
    ``kept_tokens``.

    The graph of the first chunks is kept from the first pass, as far as ``kept_tokens`` goes; only
    the chunks beyond are embedded twice. The memory of activations is that of
    ``max(chunk_tokens, kept_tokens)`` tokens; all else is O(B·V·d).

    Args:
        chunk_tokens: tokens of a chunk; a single longer row is a chunk by itself.
        kept_tokens: tokens whose graph may be kept at once. The first chunk always is.
        autocast: entered anew around each chunk and around the loss.
    """

    def __init__(
        self,
        chunk_tokens: int,
        *,
        kept_tokens: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self._chunk_tokens = chunk_tokens
        self._kept_tokens = kept_tokens
        self._autocast = autocast

    def __call__(self, method: Method, batch: Batch) -> MethodOutput:
        """The loss of a batch, whose ``backward`` embeds the chunks once more.

        Where gradients are disabled it is the loss alone, still in chunks.
        """
        batch = method.layout(batch)
        step = _Step(self._embedding(method, batch), batch, self._chunk_tokens, self._kept_tokens)
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
    """Both passes over the chunks of one batch."""

    def __init__(
        self, embed: Callable[[Chunk], Tensor], batch: Batch, chunk_tokens: int, kept_tokens: int
    ):
        self._embed = embed
        mask = batch.rows()[1]
        self._device = mask.device
        self._chunks = chunks_of(mask, chunk_tokens)
        self._rows = len(mask)
        self._kept_tokens = kept_tokens
        # Of each chunk: the embeddings with their graph, or the random numbers to replay.
        self._graphs: list[Tensor | None] = []
        self._states: list[_RandomState | None] = []

    def embed(self) -> Tensor:
        """(R, d) without a graph."""
        embeddings: Tensor | None = None
        first = self._chunks[0].tokens
        room = max(self._kept_tokens, first) if torch.is_grad_enabled() else -1
        for chunk in self._chunks:
            room -= chunk.tokens
            keep = room >= 0
            self._states.append(None if keep else _RandomState(self._device))
            with torch.set_grad_enabled(keep):
                part = self._embed(chunk)
            self._graphs.append(part if keep else None)
            if embeddings is None:
                embeddings = part.new_empty((self._rows, part.shape[1]))
            embeddings[chunk.rows] = part.detach()
        assert embeddings is not None
        return embeddings

    def backward(self, gradient: Tensor) -> None:
        """Take the gradient of the embeddings (R, d) through every chunk, in their order."""
        with _random_numbers_kept(self._device):
            for number, chunk in enumerate(self._chunks):
                part, self._graphs[number] = self._graphs[number], None
                state = self._states[number]
                if part is None:
                    assert state is not None
                    state.restore()
                    # autograd disables gradients around a backward function.
                    with torch.enable_grad():
                        part = self._embed(chunk)
                # A chunk may hold nothing but rows of a momentum encoder.
                if part.requires_grad:
                    torch.autograd.backward(part, gradient[chunk.rows])
                del part


class _RandomState:
    """The state of the generators that dropout draws from."""

    def __init__(self, device: torch.device):
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Go back to it."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    # The steps to come must not draw the masks of a replayed chunk again.
    state = _RandomState(device)
    try:
        yield
    finally:
        state.restore()
