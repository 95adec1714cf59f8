"""Softmax contrast of anchors and candidates in strips, never the whole matrix of logits.

The loss of one anchor is written as ``softplus(L - s)``, where s is the logit of its positive and L
the log-sum-exp over its negatives. ``log Z - s`` over all candidates is the same number, but where
the loss is near zero its two terms cancel and single precision leaves percents of error.

One sweep does it all: the logits of a strip of anchors give L, and are at once turned into the
gradients with respect to the unit vectors. So the forward pass holds the unit candidates, the
gradients and one strip of at most d anchors (or 16 MB): O(N d) memory, 6 N² d operations for N
anchors, and the backward pass is one multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simcse_kit.losses.chunk_masks import CellChange
from simcse_kit.losses.similarity import full_precision, unit_rows, unit_rows_backward

__all__ = ["TILES_FROM", "Contrast", "contrast", "strip_width"]

# Logits from which on strips are the faster way (512 x 512; measured on one CPU core).
TILES_FROM = 1 << 18

_WIDEST_STRIP = 512
_SMALL_STRIP = 1 << 22
_CACHED = 1 << 18
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Contrast:
    """Which candidate is whose positive, and which cells are special.

    Attributes:
        positive: (R,) int64, the candidate that is the positive of each anchor.
        changes: applied to the logits of the negatives; the positive is never changed.
        present: (c,) int64, the rows of the flattened hard negatives that exist; None: all.
        strip: anchors in one strip; None chooses.
    """

    positive: Tensor
    changes: Sequence[CellChange] = ()
    present: Tensor | None = None
    strip: int | None = None


def contrast(
    anchors: Tensor,
    positives: Tensor,
    hard_negatives: Tensor | None,
    temperature: Tensor | float,
    spec: Contrast,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over anchors of the cross entropy of cosines divided by the temperature.

    The candidates are the positives, then the hard negatives that are present.

    Args:
        anchors: (R, d), any floating type; all is computed in float32 or wider.
        positives: (P, d).
        hard_negatives: (M, d) or None.
        temperature: a number or a tensor without axes; gradients flow to it.
        spec: see :class:`Contrast`.

    Returns:
        Three scalars: the loss, and without gradient the mean cosine of anchor and positive and
        the share of anchors whose positive beats all negatives. Gradients are made in the forward
        pass, so that there is no second derivative.
    """
    if not isinstance(temperature, Tensor):
        # The default float32 would round the 0.05 of a float64 computation.
        temperature = torch.tensor(temperature, dtype=torch.float64)
    terms: tuple[Tensor, Tensor, Tensor] = _Strips.apply(  # type: ignore[no-untyped-call]
        anchors, positives, hard_negatives, temperature, spec, torch.is_grad_enabled()
    )
    return terms


def strip_width(anchors: int, candidates: int, dim: int) -> int:
    """How many anchors share one strip: what 16 MB hold, or d, so that a strip is O(N d)."""
    return min(_WIDEST_STRIP, max(dim, _SMALL_STRIP // candidates), anchors)


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        positives: Tensor,
        hard_negatives: Tensor | None,
        temperature: Tensor,
        spec: Contrast,
        with_gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants = [with_gradients and need for need in ctx.needs_input_grad[:4]]
        with full_precision(anchors.device):
            terms, gradients = _sweep(anchors, positives, hard_negatives, temperature, spec, wants)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*terms[1:])
        return terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if saved is None else outer * saved for saved in ctx.saved_tensors]
        return (*scaled, None, None)


def _sweep(
    anchors: Tensor,
    positives: Tensor,
    hard_negatives: Tensor | None,
    temperature: Tensor,
    spec: Contrast,
    wants: list[bool],
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor | None]]:
    """The three terms, and the gradients of the loss that are wanted, None for the others.

    Gradients are wide; autograd narrows them to the type of their tensor.
    """
    tensors = [x for x in (anchors, positives, hard_negatives) if x is not None]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    total, dim = anchors.shape
    ours = len(positives)
    candidates = _unit_candidates(positives, hard_negatives, spec.present, wide)
    tau = temperature.to(device=anchors.device, dtype=wide)
    for_anchors = torch.empty_like(anchors, dtype=wide) if wants[0] else None
    for_candidates = torch.zeros_like(candidates) if wants[1] or wants[2] else None
    for_tau = torch.zeros_like(tau) if wants[3] else None
    losses, cosines, wins = (candidates.new_empty(total) for _ in range(3))

    step = spec.strip or strip_width(total, len(candidates), dim)
    buffer = candidates.new_empty(step * len(candidates))
    for start in range(0, total, step):
        here = slice(start, min(start + step, total))
        unit = unit_rows(anchors[here]).to(wide)
        logits = buffer[: len(unit) * len(candidates)].view(-1, len(unit))
        torch.mm(candidates, (unit / tau).T, out=logits)
        # From here on, a cell of an anchor and its positive is apart from the negatives.
        own = (spec.positive[here], torch.arange(len(unit), device=anchors.device))
        score = logits[own]
        for change in spec.changes:
            change.apply(logits, start)
        logits[own] = -torch.inf
        peak, mass = _exponentials(logits)
        losses[here] = torch.logaddexp(peak + mass.log() - score, torch.zeros_like(score))
        cosines[here] = score * tau
        wins[here] = (peak < score).to(wide)
        if for_anchors is None and for_candidates is None and for_tau is None:
            continue
        # Softmax over all minus one-hot is weight * logits, once the positive holds -mass. A row
        # without negatives has peak -inf and weight 0.
        logits[own] = -mass
        weight = ((peak - score - losses[here]).exp() / (tau * total)).unsqueeze(1)
        if for_anchors is not None or for_tau is not None:
            pull = (logits.T @ candidates) * weight
            if for_tau is not None:
                for_tau -= (unit * pull).sum() / tau
            if for_anchors is not None:
                for_anchors[here] = unit_rows_backward(anchors[here], pull)
        if for_candidates is not None:
            for_candidates.addmm_(logits, unit * weight)

    gradients: list[Tensor | None] = [for_anchors, None, None, for_tau]
    if for_candidates is not None:
        if wants[1]:
            gradients[1] = _through_length(positives, None, for_candidates[:ours])
        if wants[2] and hard_negatives is not None:
            gradients[2] = _through_length(hard_negatives, spec.present, for_candidates[ours:])
    return (losses.mean(), cosines.mean(), wins.mean()), gradients


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (N, t) logits into exp(logit - peak of the column) in place, a cached block at a time.

    Returns:
        (t,) peaks, -inf where nothing is left, and (t,) sums of the exponentials.
    """
    width = logits.shape[1]
    cached = max(1, _CACHED // width) if logits.device.type == "cpu" else len(logits)
    blocks = torch.split(logits, cached)
    peak = logits.new_full((width,), -torch.inf)
    for block in blocks:
        peak = torch.maximum(peak, block.amax(dim=0))
    mass = torch.zeros_like(peak)
    shift = peak.clamp_min(torch.finfo(peak.dtype).min)
    for block in blocks:
        mass += block.sub_(shift).exp_().sum(dim=0)
    return peak, mass


def _unit_candidates(
    positives: Tensor, hard_negatives: Tensor | None, present: Tensor | None, wide: torch.dtype
) -> Tensor:
    """(P + present, d) vectors of length 1."""
    sources: list[tuple[Tensor, Tensor | None]] = [(positives, None)]
    if hard_negatives is not None:
        sources.append((hard_negatives, present))
    counts = [len(source) if chosen is None else len(chosen) for source, chosen in sources]
    out = positives.new_empty((sum(counts), positives.shape[1]), dtype=wide)
    for (source, chosen), part in zip(sources, torch.split(out, counts), strict=True):
        for rows, piece in _pieces(source, chosen):
            part[piece] = unit_rows(rows)
    return out


def _through_length(source: Tensor, chosen: Tensor | None, gradient: Tensor) -> Tensor:
    """From the gradient of unit rows to that of ``source``; overwrites ``gradient``."""
    for rows, piece in _pieces(source, chosen):
        gradient[piece] = unit_rows_backward(rows, gradient[piece])
    if chosen is None:
        return gradient
    return torch.zeros_like(source, dtype=gradient.dtype).index_copy_(0, chosen, gradient)


def _pieces(source: Tensor, chosen: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """The (chosen) rows a few thousand at a time, so that temporary copies stay small."""
    count = len(source) if chosen is None else len(chosen)
    for start in range(0, count, _ROWS_AT_ONCE):
        piece = slice(start, min(start + _ROWS_AT_ONCE, count))
        yield source[piece if chosen is None else chosen[piece]], piece
