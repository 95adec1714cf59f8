"""The objectives that methods can minimise, by name, with their arguments checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.info_nce import info_nce, negatives_per_anchor
from simcse_kit.losses.margin import Distance, Mining, ranking, simple, triplet
from simcse_kit.losses.similarity import full_precision, unit_rows
from simcse_kit.metrics.geometry import align_uniform, alignment
from simcse_kit.registry import closest
from simcse_kit.utils.host_copies import host_copy, send
from simcse_kit.utils.spec import instantiate, parse_chain

__all__ = ["OBJECTIVES", "Objective", "parse_objective"]


@dataclass(frozen=True)
class Objective:
    """A loss and its properties, which are checked before any data is read.

    Attributes:
        compute: The function that computes the loss and the numbers to log.
        collapsed: The loss of an encoder that gives every text the same vector, as a function of
            the number of rows and of hard negatives per row.
        hard_negatives: Whether hard negatives in the data are used, required or refused.
        temperature: Whether the loss has a temperature.
        alpha: Whether it weights an anchor's own hard negatives.
        guide: Whether a guide can exclude negatives.
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
        terms = info_nce(batch, symmetric=symmetric)
        return terms.loss, {"positive_cosine": terms.positive_cosine, "accuracy": terms.accuracy}

    def collapsed(rows: int, hard: int) -> float:
        one_way = math.log(1 + negatives_per_anchor(rows, hard))
        return (one_way + math.log(rows)) / 2 if symmetric else one_way

    return Objective(compute, collapsed, temperature=True, alpha=True)


def _nt_xent() -> Objective:
    compute = _info_nce().compute
    return Objective(
        lambda batch: compute(batch.both_views()),  # losses.nt_xent does not support a guide
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
        one_way = math.log(negatives_per_anchor(rows, hard))
        # A single positive has no negatives among the anchors and adds 0.
        return (one_way + math.log(max(1, rows - 1))) / 2 if symmetric else one_way

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
            # Copies of one text have no uniformity, but must not stop the training.
            loss = pulled = alignment(x, y, alpha)
            spread = torch.zeros_like(loss)
        else:
            loss, pulled, spread = align_uniform(x, y, weight=weight, alpha=alpha, t=t)
        loss = loss.to(torch.promote_types(batch.anchors.dtype, torch.float32))
        loss = loss.to(batch.anchors.device)  # measured on the CPU where there is no float64
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
"""Name -> function that builds the objective from its arguments."""


def parse_objective(text: str) -> Objective:
    """Build the objective of a call such as ``"triplet(margin=0.5)"``.

    Args:
        text: The name of an objective in :data:`OBJECTIVES`, with arguments or without.

    Raises:
        ConfigError: The objective is unknown or does not accept the arguments.

    Examples:
        >>> parse_objective("triplet(margin=0.5)").temperature
        False
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
    objective: Objective = instantiate(call, OBJECTIVES[call.name], what="method.objective")
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
    """Select rows with distinct anchors, and of those the rows with distinct positives."""
    rows = torch.arange(batch.rows)
    for ids in (batch.anchor_ids, batch.positive_ids):
        if ids is not None:
            ordered, order = host_copy(ids)[rows].sort(stable=True)
            first = torch.ones_like(ordered, dtype=torch.bool)
            first[1:] = ordered[1:] != ordered[:-1]
            rows = rows[order[first].sort().values]
    return send(rows, batch.anchors.device)


def _above_zero(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; give a number above 0")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; give a number above 0")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; use {', '.join(map(repr, allowed))}")
