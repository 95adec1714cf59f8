"""The table of objectives: a name, what makes the loss of its arguments, what to know of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import ContrastiveBatch, negatives_per_anchor
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.info_nce import contrastive_terms
from simcse_kit.losses.margin import Distance, Mining, ranking, simple, triplet
from simcse_kit.losses.similarity import full_precision, unit_rows
from simcse_kit.metrics.geometry import align_uniform, alignment
from simcse_kit.registry import closest
from simcse_kit.utils.spec import bound, parse_chain

__all__ = ["OBJECTIVES", "Objective", "parse_objective"]


@dataclass(frozen=True)
class Objective:
    """A loss and what has to be known of it before there is any data.

    Attributes:
        compute: the loss, and what is worth logging beside it.
        collapsed: of rows and hard negatives a row, the loss where all vectors are one.
        hard_negatives: whether it takes those of the data.
        temperature: whether there is one in it.
        alpha: whether it weighs an anchor's own hard negatives.
        guide: whether a guide can take negatives out.
    """

    compute: Callable[[ContrastiveBatch], tuple[Tensor, dict[str, Tensor]]]
    collapsed: Callable[[int, int], float]
    hard_negatives: Literal["taken", "needed", "refused"] = "taken"
    temperature: bool = False
    alpha: bool = False
    guide: bool = True


def _info_nce(symmetric: bool = False) -> Objective:
    _one_of("symmetric", symmetric, (True, False))

    def compute(batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        terms = contrastive_terms(batch, symmetric=symmetric)
        return terms.loss, {"positive_cosine": terms.positive_cosine, "accuracy": terms.accuracy}

    def collapsed(rows: int, hard: int) -> float:
        there = math.log(1 + negatives_per_anchor(rows, hard))
        return (there + math.log(rows)) / 2 if symmetric else there

    return Objective(compute, collapsed, temperature=True, alpha=True)


def _nt_xent() -> Objective:
    def compute(batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        # Not functional.nt_xent, which takes no guide.
        return contrastive(batch.both_views())

    contrastive = _info_nce().compute
    return Objective(
        compute,
        lambda rows, _: math.log(2 * rows - 1),
        hard_negatives="refused",
        temperature=True,
    )


def _decoupled(symmetric: bool = False, both_views: bool = False) -> Objective:
    _one_of("symmetric", symmetric, (True, False))
    _one_of("both_views", both_views, (True, False))
    if symmetric and both_views:
        raise ValueError("both_views is symmetric already; leave symmetric out")

    def loss(batch: ContrastiveBatch) -> Tensor:
        return decoupled_info_nce(batch.both_views() if both_views else batch, symmetric=symmetric)

    def collapsed(rows: int, hard: int) -> float:
        if both_views:
            return math.log(2 * rows - 2)
        there = math.log(negatives_per_anchor(rows, hard))
        # A single row has no negatives on the way back, which then adds 0.
        return (there + math.log(max(1, rows - 1))) / 2 if symmetric else there

    return Objective(
        _with_cosine(loss),
        collapsed,
        hard_negatives="refused" if both_views else "taken",
        temperature=True,
        alpha=not both_views,
    )


def _triplet(
    margin: float = 0.2, mining: Mining = "hard", distance: Distance = "squared"
) -> Objective:
    _above_zero("margin", margin)
    _one_of("mining", mining, get_args(Mining))
    _one_of("distance", distance, get_args(Distance))
    return Objective(
        _with_cosine(lambda batch: triplet(batch, margin=margin, mining=mining, distance=distance)),
        lambda *_: margin,
        hard_negatives="needed" if mining == "given" else "taken",
    )


def _ranking(margin: float = 0.2) -> Objective:
    _above_zero("margin", margin)
    return Objective(_with_cosine(lambda batch: ranking(batch, margin=margin)), lambda *_: margin)


def _simple(weight: float | None = None) -> Objective:
    if weight is not None:
        _above_zero("weight", weight)

    def collapsed(rows: int, hard: int) -> float:
        return 0.0 if weight is None else weight * negatives_per_anchor(rows, hard) - 1

    return Objective(_with_cosine(lambda batch: simple(batch, weight=weight)), collapsed)


def _align_uniform(weight: float = 1.0, alpha: float = 2.0, t: float = 2.0) -> Objective:
    for name, value in (("weight", weight), ("alpha", alpha), ("t", t)):
        _above_zero(name, value)

    def compute(batch: ContrastiveBatch) -> tuple[Tensor, dict[str, Tensor]]:
        rows = _distinct(batch)
        x, y = batch.anchors[rows], batch.positives[rows]
        if len(rows) < 2:
            # One text many times has nothing to be spread; it must not stop the training.
            loss = pulled = alignment(x, y, alpha)
            spread = torch.zeros_like(loss)
        else:
            loss, pulled, spread = align_uniform(x, y, weight=weight, alpha=alpha, t=t)
        loss = loss.to(torch.promote_types(batch.anchors.dtype, torch.float32))
        logs = {"alignment": pulled.detach(), "uniformity": spread.detach()}
        return loss, logs | {"positive_cosine": _positive_cosine(batch)}

    return Objective(compute, lambda *_: 0.0, hard_negatives="refused", guide=False)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "info_nce": _info_nce,
    "nt_xent": _nt_xent,
    "decoupled": _decoupled,
    "triplet": _triplet,
    "ranking": _ranking,
    "simple": _simple,
    "align_uniform": _align_uniform,
}
"""Name -> what makes the objective of its arguments."""


def parse_objective(text: str) -> Objective:
    """The objective of a call such as ``"triplet(margin=0.5)"``.

    Raises:
        ConfigError: no such objective, or arguments that it does not take.
    """
    calls = parse_chain(text, what="method.objective")
    if len(calls) > 1:
        raise ConfigError(f"method.objective is {text!r}; give one objective, not a chain")
    (call,) = calls
    if call.name not in OBJECTIVES:
        names = list(OBJECTIVES)
        raise ConfigError(
            f"method.objective: unknown objective {call.name!r}{closest(call.name, names)}; "
            f"known: {', '.join(names)}"
        )
    objective: Objective = bound(call, OBJECTIVES[call.name], what="method.objective")
    return objective


def _with_cosine(
    loss: Callable[[ContrastiveBatch], Tensor],
) -> Callable[[ContrastiveBatch], tuple[Tensor, dict[str, Tensor]]]:
    return lambda batch: (loss(batch), {"positive_cosine": _positive_cosine(batch)})


@torch.no_grad()
def _positive_cosine(batch: ContrastiveBatch) -> Tensor:
    with full_precision(batch.anchors.device):
        return (unit_rows(batch.anchors) * unit_rows(batch.positives)).sum(dim=1).mean()


def _distinct(batch: ContrastiveBatch) -> Tensor:
    """The rows whose anchor no earlier row has, and of those the ones with a new positive."""
    rows = torch.arange(batch.rows, device=batch.anchors.device)
    for ids in (batch.anchor_ids, batch.positive_ids):
        if ids is not None:
            ordered, order = ids[rows].sort(stable=True)
            first = torch.ones_like(ordered, dtype=torch.bool)
            first[1:] = ordered[1:] != ordered[:-1]
            rows = rows[order[first].sort().values]
    return rows


def _above_zero(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; give a number above 0")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; give a number above 0")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; use {', '.join(map(repr, allowed))}")
