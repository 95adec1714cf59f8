"""Dual encoder: one encoder for queries and one for keys, as in DPR (arXiv 2004.04906)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.objective import (
    ObjectiveConfig,
    ObjectiveLoss,
    check_objective_data,
    unused_in_objective,
)
from simcse_kit.methods.common.two_towers import embed_with_two

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["DualEncoder", "DualEncoderConfig"]


class DualEncoderConfig(DropoutConfig, ObjectiveConfig):
    """Options of the dual encoder, with cosine and temperature instead of DPR's dot product."""

    def check_data(self, data: DataSpec) -> None:
        """Refuse data that the objective cannot use."""
        check_objective_data(self, data.kind)

    def unused(self, data: DataSpec) -> list[str]:
        """Report options that the objective does not take."""
        return unused_in_objective(self, data.kind)


class DualEncoder(Method):
    """Contrast of queries with keys of another kind, such as questions with answers.

    The first text of a row is the query; the others are keys: the positive, then hard negatives
    (equation 2 of arXiv 2004.04906). Both encoders start from the same weights and share nothing
    afterwards. The output folder of a run contains the query encoder; its subfolder ``key``
    contains the key encoder::

        queries = SentenceEncoder.load("runs/qa")
        keys = SentenceEncoder.load("runs/qa/key")

    Only embeddings of a query and a key are comparable. Graded pairs of a dev set are scored with
    the query encoder on both sides, so for two kinds of text the loss of held-out rows is the
    better criterion.

    Examples:
        >>> str(DualEncoderConfig().contrast(DataSpec("pairs"), 32))
        '31 negatives per anchor'
    """

    name = "dual_encoder"
    paper = Paper("Dense Passage Retrieval for Open-Domain Question Answering", "2004.04906", 2020)
    reads = ("pairs", "triplets")
    Config = DualEncoderConfig

    options: DualEncoderConfig

    def __init__(self, encoder: SentenceEncoder, config: DualEncoderConfig):
        super().__init__(encoder, config)
        self.key_encoder: SentenceEncoder = copy.deepcopy(encoder)
        self.objective = ObjectiveLoss(config, encoder)

    def companions(self) -> Mapping[str, SentenceEncoder]:
        """Return the key encoder, for the subfolder ``key``."""
        return {"key": self.key_encoder}

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): view 0 with the query encoder, others with the key encoder."""
        return embed_with_two(
            input_ids, attention_mask, views, self.encoder, self.key_encoder, others=1
        )

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the objective of queries, positive keys and hard negatives (B, V, d).

        Raises:
            ConfigError: the batch has no negatives.
        """
        output: MethodOutput = self.objective(embeddings, batch)
        return output

    def after_step(self, progress: float) -> None:
        """Clamp a learned temperature to its bounds."""
        self.objective.after_step()
