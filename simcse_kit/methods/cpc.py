"""Contrastive Predictive Coding, CPC, on the sentences of a document (arXiv 1807.03748)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.losses.cpc import predictive_nce
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig
from simcse_kit.methods.common.contrast import DataSpec

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["CPC", "CPCConfig"]


class CPCConfig(DropoutConfig):
    """Options of CPC; the defaults are those of the paper's experiment with text."""

    distances: int = Field(
        default=3, ge=1, description="how many of the next sentences are predicted"
    )
    similarity: Literal["dot", "cosine"] = Field(
        default="dot", description="of prediction and sentence; cosine wants a low temperature"
    )
    temperature: float = Field(default=1.0, gt=0, description="divides the similarities")

    def unused(self, data: DataSpec) -> list[str]:
        """Report distances beyond the next sentences that rows have."""
        if self.distances <= data.negatives:
            return []
        return [
            f"method.distances = {self.distances} predicts no further than the {data.negatives} "
            "next sentences of a row; raise data.documents, or lower it"
        ]


class CPC(Method):
    """A sentence tells the next ones of its document from those of other documents.

    One linear map for each distance predicts the embedding of the sentence so far ahead. Its
    negatives are the sentences at the same distance from the other sentences of the batch. The
    loss is the mean over the distances; one at which fewer than two documents go on is left out.

    Deviation: the context is the sentence itself. The paper reads all sentences so far with a GRU,
    which would be thrown away here, as it is the encoder of single sentences that is wanted.
    """

    name: ClassVar[str] = "cpc"
    paper: ClassVar[Paper] = Paper(
        title="Representation Learning with Contrastive Predictive Coding",
        arxiv="1807.03748",
        year=2018,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("documents",)
    Config: ClassVar[type[MethodConfig]] = CPCConfig

    options: CPCConfig

    def __init__(self, encoder: SentenceEncoder, config: CPCConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        self.predictors = nn.ModuleList(
            nn.Linear(dim, dim, bias=False) for _ in range(config.distances)
        )

    def layout(self, batch: Batch) -> Batch:
        """Without the sentences that are farther away than any that is predicted."""
        wanted = min(batch.shape[1], 1 + self.options.distances)
        return batch.take_views(range(wanted))

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """InfoNCE of (B, 1 + k, d): a sentence, and the k next ones.

        Logs ``contrastive_loss``, and ``loss_at_1``, ``loss_at_2``, … for each distance.
        """
        parts: list[Tensor] = []
        logs: dict[str, float | Tensor] = {}
        for distance in range(1, batch.shape[1]):
            rows = batch.view_mask[:, distance].nonzero().squeeze(1)
            if len(rows) < 2:
                continue
            part = predictive_nce(
                self.predictors[distance - 1](embeddings[rows, 0]),
                embeddings[rows, distance],
                similarity=self.options.similarity,
                temperature=self.options.temperature,
                anchor_ids=batch.text_ids[rows, 0],
                target_ids=batch.text_ids[rows, distance],
            )
            parts.append(part)
            logs[f"loss_at_{distance}"] = part.detach()
        # A batch of last sentences has nothing to predict, but must not stop the training.
        loss = torch.stack(parts).mean() if parts else embeddings.sum() * 0.0
        logs["contrastive_loss"] = loss.detach()
        return MethodOutput(loss=loss, logs=logs)
