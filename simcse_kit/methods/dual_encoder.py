"""Two encoders trained end to end, one for queries and one for keys, as DPR (arXiv 2004.04906)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.objective import (
    ObjectiveConfig,
    ObjectiveLoss,
    check_objective_data,
    unused_in_objective,
)
from simcse_kit.methods.common.two_towers import embed_apart

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["DualEncoder", "DualEncoderConfig"]


class DualEncoderConfig(DropoutConfig, ObjectiveConfig):
    """Options of the dual encoder; DPR compares by dot product, this by cosine and temperature."""

    def check_data(self, data: DataSpec) -> None:
        """Refuse data that the objective cannot use."""
        check_objective_data(self, data.kind)

    def unused(self, data: DataSpec) -> list[str]:
        """Report options that the objective does not take."""
        return unused_in_objective(self, data.kind)


class DualEncoder(Method):
    """Contrast of queries and keys that differ in kind, such as questions and answers.

    The first text of a row is the query, the others are keys: its positive, then hard negatives.
    Both encoders start as the one given, and share nothing afterwards. The folder of a run holds
    the query encoder; its subfolder ``key`` holds the key encoder, complete by itself::

        queries = SentenceEncoder.load("runs/qa")
        keys = SentenceEncoder.load("runs/qa/key")

    Their vectors are comparable: a question's with an answer's, and only so. Graded pairs given as
    dev set are scored with the query encoder on both sides, so that for text of two kinds the loss
    of held-out rows is the better guide.
    """

    name: ClassVar[str] = "dual_encoder"
    paper: ClassVar[Paper] = Paper(
        title="Dense Passage Retrieval for Open-Domain Question Answering",
        arxiv="2004.04906",
        year=2020,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("pairs", "triplets")
    Config: ClassVar[type[MethodConfig]] = DualEncoderConfig

    options: DualEncoderConfig

    def __init__(self, encoder: SentenceEncoder, config: DualEncoderConfig):
        super().__init__(encoder, config)
        self.key_encoder: SentenceEncoder = copy.deepcopy(encoder)
        self.objective = ObjectiveLoss(config, encoder)

    def companions(self) -> Mapping[str, SentenceEncoder]:
        """The key encoder, in the folder ``key``."""
        return {"key": self.key_encoder}

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """(R, L) -> (R, d): view 0 by the query encoder, all others by the key encoder."""
        return embed_apart(input_ids, attention_mask, views > 0, self.encoder, self.key_encoder)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """The objective of (B, V, d): queries, their keys, hard negatives; it says what it logs.

        Raises:
            ConfigError: a batch without any negative.
        """
        output: MethodOutput = self.objective(embeddings, batch)
        return output

    def after_step(self, progress: float) -> None:
        """A learned temperature is kept in its bounds."""
        self.objective.after_step()
