"""The arguments of InfoNCE, checked once for all ways to compute it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.false_negatives import Guide

__all__ = ["ContrastiveBatch", "check_temperature", "negatives_per_anchor"]


def negatives_per_anchor(batch: int, hard_negatives: int = 0) -> int:
    """How many negatives one anchor meets in the denominator.

    The positives of the other rows and the hard negatives of every row, its own among them:
    ``(batch - 1) + batch * hard_negatives``.

    Args:
        batch: rows in one forward pass. Gradient accumulation does not enlarge it.
        hard_negatives: hard negatives in each row.
    """
    return batch - 1 + batch * hard_negatives


@dataclass(frozen=True)
class ContrastiveBatch:
    """Embeddings and options of one InfoNCE; :func:`contrastive.info_nce` explains the fields.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, α < 0, or no negative at all.
    """

    anchors: Tensor
    positives: Tensor
    hard_negatives: Tensor | None = None
    temperature: float | Tensor = 0.05
    hard_negative_alpha: float = 1.0
    negative_mask: Tensor | None = None
    anchor_ids: Tensor | None = None
    positive_ids: Tensor | None = None
    negative_ids: Tensor | None = None
    allow_no_negatives: bool = False
    guide: Guide | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        check_temperature(self.temperature)
        alpha = self.hard_negative_alpha
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ConfigError(
                f"hard_negative_alpha must be 0 or more, got {alpha}; it is the weight itself, "
                "not its logarithm: 1 leaves hard negatives as they are, 0 drops an anchor's own"
            )
        if negatives_per_anchor(self.rows, self.negatives) == 0 and not self.allow_no_negatives:
            raise ConfigError(
                "a batch of one sentence has no negatives: got batch size 1 and no hard "
                "negatives; use a batch size of 2 or more, and drop a last batch of one row"
            )

    @property
    def rows(self) -> int:
        """B, the anchors."""
        return self.anchors.shape[0]

    @property
    def negatives(self) -> int:
        """k, the hard negatives of one anchor."""
        return 0 if self.hard_negatives is None else self.hard_negatives.shape[1]

    @property
    def tau(self) -> float | Tensor:
        """The temperature; a tensor without axes, so that it does not widen what it divides."""
        if isinstance(self.temperature, Tensor):
            return self.temperature.reshape(())
        return self.temperature

    def reversed(self) -> ContrastiveBatch:
        """From the positives to the anchors; hard negatives belong to the anchors and stay out."""
        return ContrastiveBatch(
            self.positives,
            self.anchors,
            temperature=self.temperature,
            anchor_ids=self.positive_ids,
            positive_ids=self.anchor_ids,
            allow_no_negatives=True,
            guide=None if self.guide is None else self.guide.reversed(),
        )

    def both_views(self) -> ContrastiveBatch:
        """Every view an anchor that meets both views of the others, as in NT-Xent: 2B rows.

        Each view is among the candidates of its own anchor and is told by its id, so that ids are
        made up where they are not given.
        """
        first, second = self.anchor_ids, self.positive_ids
        if first is None or second is None:
            first, second = torch.arange(2 * self.rows, device=self.anchors.device).chunk(2)
        guide = self.guide
        return ContrastiveBatch(
            torch.cat([self.anchors, self.positives]),
            torch.cat([self.positives, self.anchors]),
            temperature=self.temperature,
            anchor_ids=torch.cat([first, second]),
            positive_ids=torch.cat([second, first]),
            guide=None if guide is None else guide.both_views(),
        )

    def plain(self) -> ContrastiveBatch:
        """The same with τ and α of 1, so that the logits are cosines."""
        return replace(self, temperature=1.0, hard_negative_alpha=1.0)

    def _check_shapes(self) -> None:
        if self.anchors.dim() != 2 or self.rows == 0:
            raise ConfigError(
                "anchors must have shape (B, d) with B of 1 or more, "
                f"got {tuple(self.anchors.shape)}"
            )
        rows, dim = self.anchors.shape
        negatives = 0
        if self.hard_negatives is not None:
            if self.hard_negatives.dim() != 3:
                raise ConfigError(
                    "hard_negatives must have shape (B, k, d), "
                    f"got {tuple(self.hard_negatives.shape)}"
                )
            negatives = self.negatives
        else:
            for name in ("negative_mask", "negative_ids"):
                given = getattr(self, name)
                if given is not None:
                    raise ConfigError(
                        f"{name} of shape {tuple(given.shape)} was given without hard_negatives"
                    )
        expected: dict[str, tuple[int, ...]] = {
            "positives": (rows, dim),
            "hard_negatives": (rows, negatives, dim),
            "negative_mask": (rows, negatives),
            "anchor_ids": (rows,),
            "positive_ids": (rows,),
            "negative_ids": (rows, negatives),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ConfigError(
                    f"{name} must have shape {shape} to fit anchors of shape "
                    f"{tuple(self.anchors.shape)}, got {tuple(tensor.shape)}"
                )
        self._check_guide()

    def _check_guide(self) -> None:
        if self.guide is None:
            return
        for name in ("anchors", "positives", "hard_negatives"):
            ours, theirs = getattr(self, name), getattr(self.guide, name)
            if theirs is not None and (ours is None or theirs.shape[:-1] != ours.shape[:-1]):
                got = None if ours is None else tuple(ours.shape)
                raise ConfigError(
                    f"guide.{name} of shape {tuple(theirs.shape)} does not fit {name} of shape "
                    f"{got}; the guide must embed the same texts in the same order"
                )


def check_temperature(temperature: float | Tensor) -> None:
    """Refuse what cannot be a temperature.

    Raises:
        ConfigError: a number that is not above 0, or a tensor of another size than one.
    """
    if isinstance(temperature, Tensor):
        # Reading the value of a tensor on an accelerator would stop the pipeline at every step.
        if temperature.numel() != 1:
            shape = tuple(temperature.shape)
            raise ConfigError(f"temperature must hold one number, got a tensor of shape {shape}")
    elif not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be above 0, got {temperature}; the paper uses 0.05")
