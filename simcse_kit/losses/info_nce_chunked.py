"""Cross entropy of cosine logits in strips of anchors, without the whole matrix of logits.

The loss of one anchor is computed as ``softplus(L - s)``, where s is the logit of its positive and
L the log-sum-exp over its negatives. This equals ``log Z - s`` with Z over all candidates, but the
latter subtracts two nearly equal numbers when the loss is near zero, and loses percents of it in
single precision.

The forward pass computes L from the logits of one strip of anchors and immediately turns them into
gradients with respect to the unit vectors. It keeps the unit candidates, the gradients and one
strip of at most d anchors (or 16 MB): O(N d) memory and 6 N² d operations for N anchors. The
backward pass is one multiplication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from simcse_kit.losses.chunk_masks import LogitChange
from simcse_kit.losses.similarity import full_precision, unit_rows, unit_rows_backward

__all__ = ["STRIPS_FROM", "StripOptions", "cross_entropy_in_strips", "strip_width"]

# Number of logits from which strips are faster (512 x 512; measured on one CPU core).
STRIPS_FROM = 1 << 18

_WIDEST_STRIP = 512
_SMALL_STRIP = 1 << 22
_CACHED = 1 << 18
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class StripOptions:
    """The positive of each anchor, and how the logits of the negatives are changed.

    Attributes:
        positive: (R,) int64, the column of each anchor's positive.
        changes: Changes of the logits of the negatives; the positive is never changed.
        present: (c,) int64, the rows of ``negatives`` that are used; None uses all.
        strip: The number of anchors in one strip; None chooses it with :func:`strip_width`.
    """

    positive: Tensor
    changes: Sequence[LogitChange] = ()
    present: Tensor | None = None
    strip: int | None = None


def cross_entropy_in_strips(
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor | None,
    temperature: Tensor | float,
    options: StripOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean cross entropy over anchors of cosines divided by the temperature.

    The candidates are the positives, followed by the negatives that are present.

    Args:
        anchors: (R, d).
        positives: (P, d).
        negatives: (M, d) or None.
        temperature: A number, or a tensor without axes that gets a gradient.
        options: The positive of each anchor, and the changes of the logits.

    Returns:
        Three scalars: the loss, and without gradient the mean cosine of anchor and positive and
        the share of anchors whose positive has the highest score. Gradients are computed in the
        forward pass, so there is no second derivative.
    """
    terms: tuple[Tensor, Tensor, Tensor] = _Strips.apply(  # type: ignore[no-untyped-call]
        anchors, positives, negatives, temperature, options, torch.is_grad_enabled()
    )
    return terms


def strip_width(anchors: int, candidates: int, dim: int, device: torch.device) -> int:
    """Choose the number of anchors in one strip.

    On the CPU, as many as fit in 16 MB, at least d and at most 512. On an accelerator, whose matrix
    products need wide strips, as many as fit in 256 MB; on a CUDA device in 1/64 of its memory, at
    most 1 GB. Free memory plays no part, so that a resumed run adds numbers in the same order.
    """
    if device.type == "cpu":
        return min(_WIDEST_STRIP, max(dim, _SMALL_STRIP // candidates), anchors)
    room = 1 << 28
    if device.type == "cuda":
        room = min(torch.cuda.get_device_properties(device).total_memory // 64, 1 << 30)
    return min(max(1, room // (4 * candidates)), anchors)


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        positives: Tensor,
        negatives: Tensor | None,
        temperature: Tensor | float,
        options: StripOptions,
        with_gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants = [with_gradients and need for need in ctx.needs_input_grad[:4]]
        with full_precision(anchors.device):
            terms, gradients = _sweep(anchors, positives, negatives, temperature, options, wants)
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
    negatives: Tensor | None,
    temperature: Tensor | float,
    options: StripOptions,
    wants: list[bool],
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor | None]]:
    """Compute the three terms and the wanted gradients of the loss, None for the others.

    The gradients are float32 or wider; autograd casts them to the type of their tensor.
    """
    tensors = [x for x in (anchors, positives, negatives) if x is not None]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    total, dim = anchors.shape
    candidates = _unit_candidates(positives, negatives, options.present, wide)
    if not isinstance(temperature, Tensor):
        # The digits that float64 keeps of 0.05; a tensor of the host would make it wait.
        temperature = torch.full((), temperature, dtype=wide, device=anchors.device)
    tau = temperature.to(device=anchors.device, dtype=wide)
    for_anchors = torch.empty_like(anchors, dtype=wide) if wants[0] else None
    for_candidates = torch.zeros_like(candidates) if wants[1] or wants[2] else None
    for_tau = torch.zeros_like(tau) if wants[3] else None
    losses, cosines, wins = (candidates.new_empty(total) for _ in range(3))

    step = options.strip or strip_width(total, len(candidates), dim, anchors.device)
    buffer = candidates.new_empty(step * len(candidates))
    for start in range(0, total, step):
        here = slice(start, min(start + step, total))
        unit = unit_rows(anchors[here]).to(wide)
        logits = buffer[: len(unit) * len(candidates)].view(-1, len(unit))
        torch.mm(candidates, (unit / tau).T, out=logits)
        # The positive is taken out, so that only the negatives remain.
        own = (options.positive[here], torch.arange(len(unit), device=anchors.device))
        score = logits[own]
        for change in options.changes:
            change(logits, start)
        logits[own] = -torch.inf
        peak, mass = _exponentials(logits)
        losses[here] = torch.logaddexp(peak + mass.log() - score, torch.zeros_like(score))
        cosines[here] = score * tau
        wins[here] = (peak < score).to(wide)
        if for_anchors is None and for_candidates is None and for_tau is None:
            continue
        # With -mass in the place of the positive, weight * logits is the softmax over all minus
        # the one-hot target. An anchor without negatives has peak -inf and weight 0.
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
        of_positives, of_negatives = for_candidates.tensor_split([len(positives)])
        if wants[1]:
            gradients[1] = _through_length(positives, None, of_positives)
        if wants[2] and negatives is not None:
            gradients[2] = _through_length(negatives, options.present, of_negatives)
    return (losses.mean(), cosines.mean(), wins.mean()), gradients


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (N, t) logits into exp(logit - peak of the column) in place, block by block.

    Returns:
        (t,) peaks, -inf where no negative is left, and (t,) sums of the exponentials.
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
    positives: Tensor, negatives: Tensor | None, present: Tensor | None, wide: torch.dtype
) -> Tensor:
    """Scale positives and present negatives to length 1: (P + c, d)."""
    sources: list[tuple[Tensor, Tensor | None]] = [(positives, None)]
    if negatives is not None:
        sources.append((negatives, present))
    counts = [len(source) if chosen is None else len(chosen) for source, chosen in sources]
    out = positives.new_empty((sum(counts), positives.shape[1]), dtype=wide)
    for (source, chosen), part in zip(sources, torch.split(out, counts), strict=True):
        for rows, piece in _pieces(source, chosen):
            part[piece] = unit_rows(rows)
    return out


def _through_length(source: Tensor, chosen: Tensor | None, gradient: Tensor) -> Tensor:
    """Turn the gradient of unit rows into that of ``source``; overwrites ``gradient``."""
    for rows, piece in _pieces(source, chosen):
        gradient[piece] = unit_rows_backward(rows, gradient[piece])
    if chosen is None:
        return gradient
    return torch.zeros_like(source, dtype=gradient.dtype).index_copy_(0, chosen, gradient)


def _pieces(source: Tensor, chosen: Tensor | None) -> Iterator[tuple[Tensor, slice]]:
    """Yield the chosen rows a few thousand at a time, so that temporary copies stay small."""
    count = len(source) if chosen is None else len(chosen)
    for start in range(0, count, _ROWS_AT_ONCE):
        piece = slice(start, min(start + _ROWS_AT_ONCE, count))
        yield source[piece if chosen is None else chosen[piece]], piece
