"""The choice of objective, as an option of all methods with anchors and positives.

A method derives its ``Config`` from :class:`ObjectiveConfig` and creates one
:class:`ObjectiveLoss`. It calls that in ``loss``, :meth:`ObjectiveLoss.after_step` in
``after_step``, and :func:`check_objective_data` in ``check_data``.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import Guide
from simcse_kit.losses.matryoshka import check_prefixes, prefix_losses
from simcse_kit.methods.common.base import MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import MethodConfig, inert
from simcse_kit.methods.common.guide import GuideModel
from simcse_kit.methods.common.objective_registry import parse_objective

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["ObjectiveConfig", "ObjectiveLoss", "check_objective_data", "unused_in_objective"]

logger = logging.getLogger(__name__)

# CLIP limits 1/τ to 100 (arXiv 2103.00020, section 2.5), open_clip also to at least 1:
# https://github.com/mlfoundations/open_clip/blob/b84cf9b669a61815a01fa3e67d9007ad1cab699f/src/open_clip_train/train.py
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.01, 1.0


class ObjectiveConfig(MethodConfig):
    """Options of methods with anchors, positives and negatives."""

    objective: str = Field(
        default="info_nce",
        description="loss as a call, such as info_nce(symmetric=True), nt_xent, decoupled, "
        "triplet(margin=0.2, mining='hard'), ranking(margin=0.2), simple, align_uniform",
    )
    temperature: float = Field(
        default=0.05, gt=0, description="temperature tau that divides the cosines"
    )
    learn_temperature: bool = Field(
        default=False,
        description="learn log(1/tau), starting at `temperature`; tau stays within 0.01 to 1",
    )
    hard_negative_alpha: float = Field(
        default=1.0,
        ge=0,
        description="weight alpha of an anchor's own hard negatives (alpha itself, not its log)",
    )
    matryoshka: list[int] = Field(
        default=[],
        description="prefix lengths of the embeddings to train, such as [64, 128, 256]",
    )
    matryoshka_weights: list[float] = Field(
        default=[], description="weight of each prefix in the loss (default: 1 each)"
    )
    guide: str | None = Field(
        default=None,
        description="folder or name of a model with the same tokenizer, whose similarities "
        "exclude false negatives",
    )
    guide_margin: float = Field(
        default=0.0,
        description="exclude candidates whose guide similarity exceeds the positive's minus this",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ObjectiveConfig:
        objective = parse_objective(self.objective)
        chosen = f"method.objective = {self.objective!r}"
        if self.learn_temperature and not objective.temperature:
            raise ConfigError(
                f"method.learn_temperature is true but {chosen} has no temperature; "
                "set it to false or choose info_nce, nt_xent or decoupled"
            )
        low, high = _LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE
        if self.learn_temperature and not low <= self.temperature <= high:
            raise ConfigError(
                f"method.temperature = {self.temperature} is the start of a learned temperature "
                f"and must be {low} to {high}; or set method.learn_temperature to false"
            )
        if self.hard_negative_alpha != 1.0 and not objective.alpha:
            raise ConfigError(
                f"method.hard_negative_alpha = {self.hard_negative_alpha} has no effect on "
                f"{chosen}; leave it at 1 or choose info_nce or decoupled"
            )
        if self.guide is not None and not objective.guide:
            raise ConfigError(
                f"method.guide = {self.guide!r} excludes no negatives from {chosen}; leave it out "
                "or choose another objective"
            )
        if self.guide is None and self.guide_margin:
            raise ConfigError(
                f"method.guide_margin = {self.guide_margin} was given without method.guide; "
                "name a model there or leave the margin out"
            )
        if self.matryoshka or self.matryoshka_weights:
            check_prefixes(self.matryoshka, self.matryoshka_weights)
        return self


def check_objective_data(options: ObjectiveConfig, kind: str) -> None:
    """Refuse data that the objective cannot learn from.

    Args:
        options: The options of the method.
        kind: The kind of training data, such as ``"triplets"``.

    Raises:
        ConfigError: The objective needs hard negatives and the data has none, or the objective
            does not use those of the data, or the guide can exclude nothing.
    """
    if options.guide is not None and kind == "texts" and options.guide_margin <= 0:
        # Anchor and positive are the same text, so no other text is closer to the anchor.
        raise ConfigError(
            f"method.guide = {options.guide!r} excludes nothing from {kind}, whose positive is the "
            "anchor itself; give method.guide_margin above 0, such as 0.1, or pairs, or leave "
            "method.guide out"
        )
    wants = parse_objective(options.objective).hard_negatives
    if wants == "needed" and kind != "triplets":
        raise ConfigError(
            f"method.objective = {options.objective!r} needs hard negatives and {kind} have none; "
            "give triplets (anchor, positive, negative), or an objective with negatives from the "
            "batch, such as triplet(mining='hard')"
        )
    if wants == "refused" and kind == "triplets":
        raise ConfigError(
            f"method.objective = {options.objective!r} does not use the hard negatives of "
            "triplets; choose the columns of anchor and positive, or another objective, such as "
            "info_nce"
        )


def unused_in_objective(options: ObjectiveConfig, kind: str) -> list[str]:
    """Describe each option that has no effect with this objective and data."""
    found = []
    if not parse_objective(options.objective).temperature:
        found += inert(
            options,
            "temperature",
            because=f"method.objective = {options.objective!r} has no temperature",
        )
    if kind != "triplets":
        found += inert(options, "hard_negative_alpha", because=f"{kind} have no hard negatives")
    return found


class ObjectiveLoss(nn.Module):
    """The chosen objective with its learned temperature and its guide.

    Args:
        options: The options of the method.
        encoder: The encoder that is trained, for its embedding size and its tokenizer.

    Raises:
        ConfigError: A prefix is longer than the embeddings, or the guide has another tokenizer.
        ModelError: The guide cannot be opened.
    """

    def __init__(self, options: ObjectiveConfig, encoder: SentenceEncoder):
        super().__init__()
        self._options = options
        self._objective = parse_objective(options.objective)
        if options.matryoshka:
            check_prefixes(
                options.matryoshka, options.matryoshka_weights, width=encoder.embedding_dim
            )
            if options.matryoshka == [encoder.embedding_dim]:
                logger.warning(
                    "method.matryoshka = %s has no effect: the vectors have %d dimensions",
                    options.matryoshka,
                    encoder.embedding_dim,
                )
        self.log_scale: nn.Parameter | None = None
        if options.learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(options.temperature)))
        self.guide: GuideModel | None = None
        if options.guide is not None:
            self.guide = GuideModel(options.guide, encoder)

    @property
    def temperature(self) -> float | Tensor:
        """The temperature τ, a tensor with gradient if it is learned."""
        return self._options.temperature if self.log_scale is None else (-self.log_scale).exp()

    def forward(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the loss of a batch.

        Logs ``contrastive_loss`` and ``positive_cosine`` (mean cosine of anchor and positive).
        InfoNCE adds ``accuracy`` (share of anchors whose positive has the highest score; a tie
        does not count), align_uniform adds ``alignment`` and ``uniformity``, a learned temperature
        adds ``temperature``, and prefixes add ``loss_64`` and so on. ``ln_batch`` is the loss of a
        collapsed encoder if it differs from ln of the number of candidates.

        Args:
            embeddings: (B, V, d), anchors, positives and V - 2 hard negatives.
            batch: The batch of the embeddings.

        Raises:
            ConfigError: The batch has no negatives.
        """
        temperature, guide = self.temperature, self._guide_of(batch)
        alpha = self._options.hard_negative_alpha
        logs: dict[str, float | Tensor] = {}

        def compute(vectors: Tensor) -> Tensor:
            contrastive = batch.to_contrastive(
                vectors, temperature, hard_negative_alpha=alpha, guide=guide
            )
            loss, terms = self._objective.compute(contrastive)
            logs.update(terms)
            return loss

        dims = self._options.matryoshka
        if dims:
            weights = self._options.matryoshka_weights
            loss, parts = prefix_losses(compute, embeddings, dims, weights)
            logs |= {f"loss_{dim}": part.detach() for dim, part in zip(dims, parts, strict=True)}
        else:
            loss = compute(embeddings)
        logs["contrastive_loss"] = loss.detach()
        if isinstance(temperature, Tensor):
            logs["temperature"] = temperature.detach()
        if dims or self._options.objective != "info_nce":
            logs["ln_batch"] = self.collapsed(batch.shape[0], batch.shape[1] - 2)
        return MethodOutput(loss=loss, logs=logs)

    def collapsed(self, rows: int, hard_negatives: int = 0) -> float:
        """Return the loss of an encoder that gives every text the same vector."""
        weights = self._options.matryoshka_weights or [1.0] * len(self._options.matryoshka)
        return self._objective.collapsed(rows, hard_negatives) * (sum(weights) if weights else 1.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Clamp a learned temperature to its bounds; call it after every optimizer step."""
        if self.log_scale is not None:
            highest = -math.log(_LOWEST_TEMPERATURE)
            self.log_scale.clamp_(-math.log(_HIGHEST_TEMPERATURE), highest)

    def _guide_of(self, batch: Batch) -> Guide | None:
        if self.guide is None:
            return None
        vectors = self.guide.embed(batch)
        hard = vectors[:, 2:] if batch.shape[1] > 2 else None
        return Guide(vectors[:, 0], vectors[:, 1], hard, margin=self._options.guide_margin)
