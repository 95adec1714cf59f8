"""CPC: contrastive predictive coding over the sentences of a document (arXiv 1807.03748)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.cpc import predictive_nce
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.utils.host_copies import host_copy, send

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["CPC", "CPCConfig"]


class CPCConfig(DropoutConfig):
    """Options of CPC, with the defaults of the paper's experiment with text."""

    distances: int = Field(default=3, ge=1, description="number of next sentences to predict")
    similarity: Literal["dot", "cosine"] = Field(
        default="dot",
        description="similarity of prediction and sentence; cosine needs a low temperature",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="temperature that divides the similarities"
    )

    def unused(self, data: DataSpec) -> list[str]:
        """Report distances beyond the next sentences that rows have."""
        if self.distances <= data.negatives:
            return []
        return [
            f"method.distances = {self.distances} predicts no further than the {data.negatives} "
            "next sentences of a row; raise data.documents, or lower it"
        ]


class CPC(Method):
    """Prediction of the next sentences of a document among those of other documents.

    For each distance, a linear map predicts the embedding of the sentence at that distance. The
    negatives are the sentences at the same distance in the other rows of the batch (equation 4 of
    arXiv 1807.03748). The loss is the mean over the distances; a distance with fewer than two
    documents in the batch is left out.

    Deviation: the context is the sentence itself. The paper reads all previous sentences with a
    GRU, which would be discarded here, because only the sentence encoder is kept.

    Examples:
        >>> CPCConfig(distances=3).unused(DataSpec("documents", 3))
        []
    """

    name = "cpc"
    paper = Paper("Representation Learning with Contrastive Predictive Coding", "1807.03748", 2018)
    reads = ("documents",)
    Config = CPCConfig

    options: CPCConfig

    def __init__(self, encoder: SentenceEncoder, config: CPCConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        self.predictors = nn.ModuleList(
            nn.Linear(dim, dim, bias=False) for _ in range(config.distances)
        )

    def layout(self, batch: Batch) -> Batch:
        """Drop the sentences beyond the largest predicted distance."""
        wanted = min(batch.shape[1], 1 + self.options.distances)
        return batch.take_views(range(wanted))

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute InfoNCE of a sentence and its k next sentences (B, 1 + k, d).

        Logs ``contrastive_loss``, and for each distance ``loss_at_1``, ``loss_at_2`` and so on.
        """
        parts: list[Tensor] = []
        logs: dict[str, float | Tensor] = {}
        for distance in range(1, batch.shape[1]):
            rows = host_copy(batch.view_mask)[:, distance].nonzero().squeeze(1)
            if len(rows) < 2:
                continue
            rows = send(rows, embeddings.device)
            contrast = ContrastiveBatch(
                self.predictors[distance - 1](embeddings[rows, 0]),
                embeddings[rows, distance],
                temperature=self.options.temperature,
                anchor_ids=batch.text_ids[rows, 0],
                positive_ids=batch.text_ids[rows, distance],
            )
            part = predictive_nce(contrast, similarity=self.options.similarity)
            parts.append(part)
            logs[f"loss_at_{distance}"] = part.detach()
        # A batch of last sentences has nothing to predict, and must not stop the training.
        loss = torch.stack(parts).mean() if parts else embeddings.sum() * 0.0
        logs["contrastive_loss"] = loss.detach()
        return MethodOutput(loss=loss, logs=logs)
