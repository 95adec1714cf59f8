"""Training with several threads, each of which runs all layers on its share of the rows.

Threads inside torch's operators wait for each other at the end of every operator. Threads with
their own rows wait twice per step: after the forward pass and after the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.encoder.threads import in_parallel

__all__ = ["Shares", "run_shared"]

# Function of a thread: number of the share, its states and its layout to the states of layers.
Run: TypeAlias = Callable[[int, Tensor, Layout], Sequence[Tensor]]


class Shares:
    """Shares of the rows of a packed batch, with about equally many rows of each length.

    Args:
        layout: Layout of the whole batch.
        workers: Number of shares; there are fewer if the batch has fewer rows.
    """

    def __init__(self, layout: Layout, workers: int):
        self.layout = layout
        workers = min(workers, len(layout.order))
        # Number of rows of each group in each share; the shares get a surplus row in turn.
        self._counts: list[list[int]] = []
        dealt = 0
        for rows, _ in layout.groups:
            counts = [rows // workers] * workers
            for extra in range(dealt, dealt + rows % workers):
                counts[extra % workers] += 1
            dealt += rows
            self._counts.append(counts)
        lengths = [length for _, length in layout.groups]
        self.layouts = [
            Layout(
                # The order of the batch is not needed in a share.
                layout.order[:0],
                tuple(
                    (counts[worker], length)
                    for counts, length in zip(self._counts, lengths, strict=True)
                    if counts[worker]
                ),
            )
            for worker in range(workers)
        ]

    def deal(self, tokens: Tensor) -> list[Tensor]:
        """Split ``(T, ...)`` of tokens, or ``(R, ...)`` of rows, into a tensor for each share."""
        pieces = torch.split(tokens, self._sizes(len(tokens)))
        count = len(self.layouts)
        return [torch.cat(pieces[worker::count]) for worker in range(count)]

    def join(self, shares: Sequence[Tensor]) -> Tensor:
        """Invert :meth:`deal`."""
        sizes = self._sizes(sum(map(len, shares)))
        count = len(self.layouts)
        pieces = [torch.split(share, sizes[w::count]) for w, share in enumerate(shares)]
        return torch.cat([piece for group in zip(*pieces, strict=True) for piece in group])

    def _sizes(self, length: int) -> list[int]:
        """Return the sizes of the pieces, by group and within a group by share."""
        whole = length == self.layout.tokens
        return [
            count * (tokens if whole else 1)
            for (_, tokens), counts in zip(self.layout.groups, self._counts, strict=True)
            for count in counts
        ]


def run_shared(
    run: Run, states: Tensor, shares: Shares, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Run a function on all shares of a batch, in parallel and differentiably.

    Args:
        run: Function, called in a thread for each share with its number, states and layout.
        states: ``(T, d)``.
        shares: Shares of the rows.
        parameters: All tensors that ``run`` uses and that need a gradient.

    Returns:
        The joined results of ``run``.
    """
    if not torch.is_grad_enabled():
        parts = shares.deal(states)

        def forwards(worker: int) -> Sequence[Tensor]:
            # Each thread has its own setting of gradients.
            with torch.no_grad():
                return run(worker, parts[worker], shares.layouts[worker])

        results = in_parallel(forwards, range(len(parts)))
        return [shares.join(layer) for layer in zip(*results, strict=True)]
    return list(_Shared.apply(run, shares, states, *parameters))  # type: ignore[no-untyped-call]


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Run, shares: Shares, states: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        # Frozen embeddings need no gradient, nor do the frozen layers above them.
        wanted = ctx.needs_input_grad[2]
        parts = [part.requires_grad_(wanted) for part in shares.deal(states.detach())]

        def forwards(worker: int) -> Sequence[Tensor]:
            with torch.enable_grad():
                return run(worker, parts[worker], shares.layouts[worker])

        results = in_parallel(forwards, range(len(parts)))
        ctx.graphs, ctx.shares, ctx.parameters = (
            list(zip(parts, results, strict=True)),
            shares,
            parameters,
        )
        ctx.set_materialize_grads(False)
        return tuple(
            shares.join([part.detach() for part in layer]) for layer in zip(*results, strict=True)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        graphs, ctx.graphs = ctx.graphs, None
        # States below the lowest trained layer depend on no trained weight.
        trained = [state.requires_grad for state in graphs[0][1]]
        asked = {
            number: ctx.shares.deal(grad)
            for number, grad in enumerate(grads)
            if grad is not None and trained[number]
        }
        wanted = bool(ctx.needs_input_grad[2])

        def backwards(worker: int) -> tuple[Tensor | None, ...]:
            part, results = graphs[worker]
            # Not `backward`: the order of additions to a shared gradient would be random.
            found = torch.autograd.grad(
                [results[number] for number in asked],
                [part, *ctx.parameters] if wanted else ctx.parameters,
                [layer[worker] for layer in asked.values()],
                allow_unused=True,
            )
            return found if wanted else (None, *found)

        found = in_parallel(backwards, range(len(graphs)))
        sums = [_total(column) for column in zip(*(row[1:] for row in found), strict=True)]
        states = None if found[0][0] is None else ctx.shares.join([row[0] for row in found])
        return None, None, states, *sums


def _total(grads: Sequence[Tensor | None]) -> Tensor | None:
    first, *others = grads
    # A weight is used by all shares or by none.
    if first is None:
        return None
    # Added in a fixed order, so that the sum is always the same.
    for other in others:
        assert other is not None
        first = first.add_(other)
    return first
