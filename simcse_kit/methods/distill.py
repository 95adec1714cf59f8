"""Distillation of large encoders into a small one."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.distillation import relational_kl, target_distance, target_mse
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.teachers import TeacherConfig

__all__ = ["Distill", "DistillConfig"]


class DistillConfig(TeacherConfig):
    """Options of the distillation."""

    cosine_weight: float = Field(
        default=1.0, ge=0, description="weight of 1 - cosine to the target (0 disables)"
    )
    kl_weight: float = Field(
        default=1.0,
        ge=0,
        description="weight of the divergence of the similarities within the batch (0 disables)",
    )
    mse_weight: float = Field(
        default=0.0, ge=0, description="weight of the squared error to the target (0 disables)"
    )
    contrast_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of SimCSE's loss, which takes every sentence twice (0 disables)",
    )
    temperature: float = Field(
        default=0.05, gt=0, description="divides the similarities within the batch"
    )

    @model_validator(mode="after")
    def _has_a_loss(self) -> DistillConfig:
        if not (self.cosine_weight or self.kl_weight or self.mse_weight):
            raise ConfigError(
                "method.cosine_weight, kl_weight and mse_weight are all 0; set one of them above "
                "0, or use method simcse, which has no teacher"
            )
        return self

    def fewest_rows(self, data: DataSpec) -> int:
        """Return 2 if the loss compares the rows of a batch."""
        return 2 if self._compares_rows else 1

    def unused(self, data: DataSpec) -> list[str]:
        """Return a sentence if a temperature was set and nothing is divided by it."""
        if self._compares_rows:
            return []
        return inert(self, "temperature", because="kl_weight and contrast_weight are 0")

    @property
    def _compares_rows(self) -> bool:
        return bool(self.kl_weight or self.contrast_weight)


class Distill(Method):
    """Learns the vectors that one or more teachers give the same sentences.

    - ``cosine_weight``: 1 - cosine of the vector and its target.
    - ``kl_weight``: the divergence of the student's softmax over the similarities of a row with the
      other rows of the batch from that of the teachers (RankCSE, arXiv 2305.16726). A larger batch
      has more comparisons; gradient accumulation adds none.
    - ``mse_weight``: the squared error (arXiv 2004.09813), for comparison.
    - ``contrast_weight``: InfoNCE of two views of a sentence that differ by dropout, as in SimCSE.
      RankCSE adds the divergence to this loss. With the start of the student as its teacher, the
      other losses keep the student near its start while it learns from new text.

    The target of a sentence is the vector of the teacher, of length 1. Several teachers are put
    side by side, so that the cosine of two targets is the weighted mean of the teachers' cosines.
    A small contrastive student of a large one is also the subject of DistilCSE (arXiv 2112.05638).

    Examples:
        >>> options = DistillConfig(teachers=["large", "st:larger"], teacher_weights=[2, 1])
        >>> options.cosine_weight, options.kl_weight, options.bridge
        (1.0, 1.0, 'principal')
    """

    name = "distill"
    paper = Paper(
        "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
        "2004.09813",
        2020,
    )
    reads = ("texts",)
    Config = DistillConfig

    options: DistillConfig

    def layout(self, batch: Batch) -> Batch:
        """Take a view once, or twice for the contrast; each has the target of its row."""
        return super().layout(batch) if self.options.contrast_weight else batch

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the loss of (B, V, d) embeddings and (B, d) targets.

        Logs its parts: ``target_distance``, ``relational_kl``, ``target_mse`` and
        ``contrastive_loss``.

        Raises:
            ConfigError: the batch has no targets, or they have another width.
        """
        targets = batch.targets
        if targets is None:
            raise ConfigError(
                f"method {self.name!r} needs the vectors of a teacher and the batch has none; name "
                "a teacher with --teacher MODEL"
            )
        options, views = self.options, embeddings.shape[1]
        vectors, ids = embeddings.flatten(0, 1), batch.text_ids.flatten()
        if views > 1:
            targets = targets.repeat_interleave(views, dim=0)
        parts: dict[str, tuple[float, Tensor]] = {}
        if options.cosine_weight:
            parts["target_distance"] = options.cosine_weight, target_distance(vectors, targets)
        if options.kl_weight:
            divergence = relational_kl(
                vectors, targets, temperature=options.temperature, text_ids=ids
            )
            parts["relational_kl"] = options.kl_weight, divergence
        if options.mse_weight:
            parts["target_mse"] = options.mse_weight, target_mse(vectors, targets)
        if options.contrast_weight:
            pairs = ContrastiveBatch(
                embeddings[:, 0],
                embeddings[:, 1],
                temperature=options.temperature,
                anchor_ids=batch.text_ids[:, 0],
                positive_ids=batch.text_ids[:, 1],
            )
            parts["contrastive_loss"] = options.contrast_weight, info_nce(pairs).loss
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        return MethodOutput(loss, {name: part.detach() for name, (_, part) in parts.items()})
