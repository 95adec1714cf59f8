"""What is asked of anchors, positives and negatives: one option for all methods with pairs.

A method takes :class:`ObjectiveConfig` as base of its ``Config``, makes one :class:`ObjectiveLoss`,
calls it in ``loss`` and :meth:`ObjectiveLoss.after_step` in ``after_step``, and calls
:func:`check_objective_data` in ``check_data``.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.false_negatives import Guide
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

# CLIP keeps 1/τ from growing past 100 (arXiv 2103.00020, section 2.5); open_clip has the other end.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 0.01, 1.0


class ObjectiveConfig(MethodConfig):
    """Base of the options of methods that compare anchors, positives and negatives."""

    objective: str = Field(
        default="info_nce",
        description="loss as a call, such as info_nce(symmetric=True), nt_xent, decoupled, "
        "triplet(margin=0.2, mining='hard'), ranking(margin=0.2), simple, align_uniform",
    )
    temperature: float = Field(
        default=0.05, gt=0, description="tau of the paper, divides the cosines"
    )
    learn_temperature: bool = Field(
        default=False,
        description="train 1/tau (its logarithm), from `temperature` on; tau stays in 0.01 to 1",
    )
    hard_negative_alpha: float = Field(
        default=1.0,
        ge=0,
        description="alpha of the paper (not its log): weight of an anchor's own hard negatives",
    )
    matryoshka: list[int] = Field(
        default=[],
        description="train these numbers of first dimensions at once, such as [64, 128, 256]",
    )
    matryoshka_weights: list[float] = Field(
        default=[], description="weight of each of them in the loss; empty: 1 each"
    )
    guide: str | None = Field(
        default=None,
        description="model whose similarities tell false negatives, which are left out; a folder "
        "or name, with the same tokenizer",
    )
    guide_margin: float = Field(
        default=0.0,
        description="leave out what the guide finds closer than the positive less this much",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ObjectiveConfig:
        objective = parse_objective(self.objective)
        said = f"method.objective = {self.objective!r}"
        if self.learn_temperature and not objective.temperature:
            raise ConfigError(
                f"method.learn_temperature is true but {said} has no temperature; "
                "set it to false or choose info_nce, nt_xent or decoupled"
            )
        low, high = _LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE
        if self.learn_temperature and not low <= self.temperature <= high:
            raise ConfigError(
                f"method.temperature = {self.temperature} is where learning starts and must be "
                f"{low} to {high}; or set method.learn_temperature to false"
            )
        if self.hard_negative_alpha != 1.0 and not objective.alpha:
            raise ConfigError(
                f"method.hard_negative_alpha = {self.hard_negative_alpha} has no part in {said}; "
                "leave it at 1 or choose info_nce or decoupled"
            )
        if self.guide is not None and not objective.guide:
            raise ConfigError(
                f"method.guide = {self.guide!r} takes no negatives out of {said}; leave it out or "
                "choose another objective"
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
    """Refuse data that the objective cannot learn from. Needs no weights.

    Raises:
        ConfigError: it needs hard negatives and the data has none, or the other way round; or a
            guide could leave nothing out.
    """
    if options.guide is not None and kind == "texts" and options.guide_margin <= 0:
        # Anchor and positive are one text, and nothing is closer to it than the text itself.
        raise ConfigError(
            f"method.guide = {options.guide!r} leaves nothing out of {kind}, whose positive is the "
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
            f"method.objective = {options.objective!r} has no place for the hard negatives of "
            "triplets; choose the columns of anchor and positive, or another objective, such as "
            "info_nce"
        )


def unused_in_objective(options: ObjectiveConfig, kind: str) -> list[str]:
    """A sentence for each option that changes nothing with this objective and data."""
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
    """The chosen objective, with its temperature if that is learned and its guide if there is one.

    Args:
        options: the method's options.
        encoder: the encoder that is trained; its width and its tokenizer are looked at.

    Raises:
        ConfigError: prefixes beyond the width of the encoder, or a guide with another tokenizer.
        ModelError: the guide cannot be opened.
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
        self._guide: GuideModel | None = None
        if options.guide is not None:
            self._guide = GuideModel(options.guide, encoder)

    @property
    def temperature(self) -> float | Tensor:
        """τ; a tensor joined to the graph where it is learned."""
        return self._options.temperature if self.log_scale is None else (-self.log_scale).exp()

    def forward(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """The loss of (B, V, d): anchors, positives, then hard negatives if V is above 2.

        Logs ``contrastive_loss`` and ``positive_cosine`` (mean cosine of anchor and positive);
        ``accuracy`` (share of anchors whose positive beats every negative; a tie does not count)
        with InfoNCE; ``alignment`` and ``uniformity`` where they are the loss; ``temperature``
        where it is learned; ``loss_64``, … of each prefix; and as ``ln_batch`` the loss of a
        collapsed encoder, where that is not ln of the candidates.

        Raises:
            ConfigError: a batch without any negative, or with shapes that do not fit.
        """
        temperature, guide = self.temperature, self._guide_of(batch)
        logs: dict[str, float | Tensor] = {}

        def compute(vectors: Tensor) -> Tensor:
            loss, beside = self._objective.compute(
                self._contrast(vectors, batch, temperature, guide)
            )
            logs.update(beside)
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
        """The loss where all vectors are one: a loss that stays there has learnt nothing."""
        weights = self._options.matryoshka_weights or [1.0] * len(self._options.matryoshka)
        return self._objective.collapsed(rows, hard_negatives) * (sum(weights) if weights else 1.0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep a learned temperature in its bounds; to be called after every optimizer step."""
        if self.log_scale is not None:
            highest = -math.log(_LOWEST_TEMPERATURE)
            self.log_scale.clamp_(-math.log(_HIGHEST_TEMPERATURE), highest)

    def _contrast(
        self, vectors: Tensor, batch: Batch, temperature: float | Tensor, guide: Guide | None
    ) -> ContrastiveBatch:
        has_hard = batch.shape[1] > 2
        return ContrastiveBatch(
            vectors[:, 0],
            vectors[:, 1],
            vectors[:, 2:] if has_hard else None,
            temperature=temperature,
            hard_negative_alpha=self._options.hard_negative_alpha,
            negative_mask=batch.view_mask[:, 2:] if has_hard else None,
            anchor_ids=batch.text_ids[:, 0],
            positive_ids=batch.text_ids[:, 1],
            negative_ids=batch.text_ids[:, 2:] if has_hard else None,
            guide=guide,
        )

    def _guide_of(self, batch: Batch) -> Guide | None:
        if self._guide is None:
            return None
        vectors = self._guide.embed(batch)
        hard = vectors[:, 2:] if batch.shape[1] > 2 else None
        return Guide(vectors[:, 0], vectors[:, 1], hard, margin=self._options.guide_margin)
