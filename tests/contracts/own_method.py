"""A training method as users write it, outside the package."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, arange, nn
from torch.nn.functional import cross_entropy, normalize

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig

NAME = "tests.contracts.own_method:CrossEntropy"


class Options(DropoutConfig):
    scale: float = Field(20.0, gt=0, description="factor of the cosines")


class CrossEntropy(Method):
    """The positive of a row among the positives of all rows."""

    reads = ("texts", "pairs")
    Config = Options

    def __init__(self, encoder: SentenceEncoder, config: Options):
        super().__init__(encoder, config)
        self.scale = config.scale
        self.head = nn.Linear(encoder.embedding_dim, encoder.embedding_dim)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Put the head on the embeddings."""
        embeddings: Tensor = self.head(super().embed(input_ids, attention_mask, views))
        return embeddings

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Cross entropy of scaled cosines; rows with one text are not told from each other."""
        anchors, positives = normalize(embeddings, dim=-1).unbind(1)
        anchor_ids, positive_ids = batch.text_ids.unbind(1)
        other = arange(len(anchors)) != arange(len(anchors)).unsqueeze(1)
        same = (anchor_ids[:, None] == positive_ids) | (positive_ids[:, None] == positive_ids)
        logits = (anchors @ positives.T * self.scale).masked_fill(other & same, -1e9)
        loss = cross_entropy(logits, arange(len(anchors)))
        return MethodOutput(loss, {"contrastive_loss": loss.detach()})
