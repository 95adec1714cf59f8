"""The input of every contrastive loss, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows
from simcse_kit.utils.host_copies import on_both

__all__ = ["ContrastiveBatch", "Guide", "check_margin", "check_temperature"]


@dataclass(frozen=True)
class Guide:
    """Embeddings of a batch by a guide model, which finds false negatives (GISTEmbed).

    A candidate c is excluded from the denominator of anchor i if
    ``cos(g_i, g_c) > cos(g_i, g_i+) - margin``, that is, if it is closer to the anchor than the
    positive. The positive itself always stays. Source: arXiv 2402.16829.

    Args:
        anchors: (B, g). The width g may differ from that of the trained encoder.
        positives: (B, g).
        hard_negatives: (B, k, g). Without them, no hard negative is excluded.
        margin: 0 in the paper. A larger margin excludes more candidates, a negative one fewer.
    """

    anchors: Tensor
    positives: Tensor
    hard_negatives: Tensor | None = None
    margin: float = 0.0

    def limits(self) -> Tensor:
        """Return (B,): the highest cosine with anchor i that a negative may have."""
        with full_precision(self.anchors.device), torch.no_grad():
            own = (unit_rows(self.anchors) * unit_rows(self.positives)).sum(dim=1)
        return own - self.margin

    def too_close(self, candidates: Tensor) -> Tensor:
        """Return (B, N) bool for (N, g) candidates: True where a candidate is a false negative."""
        with torch.no_grad():
            return cosine_matrix(self.anchors, candidates) > self.limits().unsqueeze(1)

    def reversed(self) -> Guide:
        """Swap anchors and positives, and drop the hard negatives."""
        return Guide(self.positives, self.anchors, margin=self.margin)

    def both_views(self) -> Guide:
        """Use anchors and positives as anchors, each with the other as its positive."""
        anchors = torch.cat([self.anchors, self.positives])
        positives = torch.cat([self.positives, self.anchors])
        return Guide(anchors, positives, margin=self.margin)


@dataclass(frozen=True)
class ContrastiveBatch:
    """The input of a contrastive loss: anchors, their candidates, and the options of the softmax.

    Every anchor is compared with the positives of all rows, the hard negatives of all rows and
    all keys of the queue. If ids are given, a candidate with the same text as anchor i or as its
    positive is excluded from the denominator of anchor i, so that no sentence is its own negative.
    The positive of the row itself always stays. Texts without ids are not compared.

    Args:
        anchors: (B, d).
        positives: (B, d), row i belongs to anchor i.
        hard_negatives: (B, k, d), row i belongs to anchor i.
        temperature: The number τ > 0 that divides the cosines. It may be a tensor with one
            element, for a learned temperature; its sign is not checked, to avoid a device sync.
        hard_negative_alpha: The weight α ≥ 0 of an anchor's *own* hard negatives: log α is added
            to their logits after the division by τ. 1 changes nothing, 0 drops them.
        negative_mask: (B, k) bool, False where a row has no such hard negative.
        anchor_ids: (B,) int64, equal if and only if the texts are equal.
        positive_ids: (B,) int64.
        negative_ids: (B, k) int64.
        allow_no_negatives: Return 0 for a batch of one sentence instead of raising an error.
        guide: Embeddings of the same texts by a second model, which exclude false negatives.
        queue: (Q, d), keys of earlier batches, further negatives of every anchor; Q may be 0.
        queue_ids: (Q,) int64.

    Raises:
        ConfigError: The shapes do not match, τ ≤ 0, α < 0, or there are no negatives.

    Examples:
        >>> batch = ContrastiveBatch(torch.eye(4), torch.eye(4), queue=torch.ones(8, 4))
        >>> batch.rows, batch.candidates
        (4, 12)
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
    queue: Tensor | None = None
    queue_ids: Tensor | None = None

    def __post_init__(self) -> None:
        self._check_shapes()
        check_temperature(self.temperature)
        alpha = self.hard_negative_alpha
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ConfigError(
                f"hard_negative_alpha must be 0 or more, got {alpha}; it is the weight itself, "
                "not its logarithm: 1 leaves hard negatives as they are, 0 drops an anchor's own"
            )
        if self.candidates == 1 and not self.allow_no_negatives:
            raise ConfigError(
                "a batch of one sentence has no negatives: got batch size 1 and no hard "
                "negatives; use a batch size of 2 or more, and drop a last batch of one row"
            )

    @property
    def rows(self) -> int:
        """The number B of anchors."""
        return self.anchors.shape[0]

    @property
    def negatives(self) -> int:
        """The number k of hard negatives of one anchor."""
        return 0 if self.hard_negatives is None else self.hard_negatives.shape[1]

    @property
    def candidates(self) -> int:
        """The width of the matrix of logits, with masked texts and padding of the queue."""
        keys = 0 if self.queue is None else len(self.queue)
        return self.rows * (1 + self.negatives + math.ceil(keys / self.rows))

    @property
    def tau(self) -> float | Tensor:
        """The temperature, as a tensor without axes if it is learned."""
        # A tensor with an axis would widen the type of the logits it divides.
        if isinstance(self.temperature, Tensor):
            return self.temperature.reshape(())
        return self.temperature

    def reversed(self) -> ContrastiveBatch:
        """Swap anchors and positives; hard negatives and the queue belong to the anchors."""
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
        """Use all 2B views as anchors that meet both views of the other rows, as in NT-Xent.

        Each view is also among the candidates of its own anchor and is excluded by id; unique ids
        are generated if none are given. Hard negatives and the queue are dropped.
        """
        first, second = self.anchor_ids, self.positive_ids
        if first is None or second is None:
            first, second = torch.arange(2 * self.rows, device=self.anchors.device).chunk(2)

        def joined(*parts: Tensor) -> Tensor:
            return torch.cat(parts)

        return ContrastiveBatch(
            torch.cat([self.anchors, self.positives]),
            torch.cat([self.positives, self.anchors]),
            temperature=self.temperature,
            anchor_ids=on_both(joined, first, second),
            positive_ids=on_both(joined, second, first),
            guide=None if self.guide is None else self.guide.both_views(),
        )

    def refuse(self, loss: str, *fields: str) -> None:
        """Raise an error if a field is set that a loss does not use.

        Args:
            loss: The name of the loss, for the message.
            fields: The names of the fields.

        Raises:
            ConfigError: One of the fields is not None.
        """
        for name in fields:
            if getattr(self, name) is not None:
                raise ConfigError(f"{loss} does not use {name}; leave it out or use info_nce")

    def _check_shapes(self) -> None:
        if self.anchors.dim() != 2 or self.rows == 0:
            raise ConfigError(
                "anchors must have shape (B, d) with B of 1 or more, "
                f"got {tuple(self.anchors.shape)}"
            )
        rows, dim = self.anchors.shape
        if self.hard_negatives is not None and self.hard_negatives.dim() != 3:
            raise ConfigError(
                f"hard_negatives must have shape (B, k, d), got {tuple(self.hard_negatives.shape)}"
            )
        for whole, parts in (
            ("hard_negatives", ("negative_mask", "negative_ids")),
            ("queue", ("queue_ids",)),
        ):
            for name in parts:
                given = getattr(self, name)
                if given is not None and getattr(self, whole) is None:
                    raise ConfigError(
                        f"{name} of shape {tuple(given.shape)} was given without {whole}"
                    )
        keys = 0 if self.queue is None or not self.queue.dim() else len(self.queue)
        expected: dict[str, tuple[int, ...]] = {
            "positives": (rows, dim),
            "hard_negatives": (rows, self.negatives, dim),
            "negative_mask": (rows, self.negatives),
            "anchor_ids": (rows,),
            "positive_ids": (rows,),
            "negative_ids": (rows, self.negatives),
            "queue": (keys, dim),
            "queue_ids": (keys,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ConfigError(
                    f"{name} must have shape {shape} to fit anchors of shape "
                    f"{tuple(self.anchors.shape)}, got {tuple(tensor.shape)}"
                )
        for name in ("anchors", "positives", "hard_negatives") if self.guide is not None else ():
            ours, theirs = getattr(self, name), getattr(self.guide, name)
            if theirs is not None and (ours is None or theirs.shape[:-1] != ours.shape[:-1]):
                got = None if ours is None else tuple(ours.shape)
                raise ConfigError(
                    f"guide.{name} of shape {tuple(theirs.shape)} does not fit {name} of shape "
                    f"{got}; the guide must embed the same texts in the same order"
                )


def check_temperature(temperature: float | Tensor) -> None:
    """Check that a temperature is above 0 or one learned number; raise ConfigError if not."""
    if isinstance(temperature, Tensor):
        # Reading the value of a tensor on an accelerator would stop the pipeline at every step.
        if temperature.numel() != 1:
            shape = tuple(temperature.shape)
            raise ConfigError(f"temperature must hold one number, got a tensor of shape {shape}")
    elif not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be above 0, got {temperature}; the paper uses 0.05")


def check_margin(margin: float) -> None:
    """Check that a margin is above 0, and raise ConfigError if it is not."""
    if not (math.isfinite(margin) and margin > 0):
        raise ConfigError(f"margin must be above 0, got {margin}")
