"""SimCLR: contrast of all views of a batch through a projector (arXiv 2002.05709)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.methods.common.heads import relu_layers

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SimCLR", "SimCLRConfig"]


class SimCLRConfig(DropoutConfig):
    """Options of SimCLR, with the paper's defaults for ImageNet."""

    temperature: float = Field(
        default=0.1, gt=0, description="temperature tau that divides the cosines"
    )
    hidden_size: int | None = Field(
        default=None,
        ge=1,
        description="hidden width of the projector; unset: the encoder's width, as in the paper "
        "(2048)",
    )
    projection_size: int = Field(
        default=128, ge=1, description="width of the vectors that the loss compares"
    )
    batch_norm: bool = Field(
        default=False,
        description="BatchNorm in the projector (not in the paper's formula, but in its code)",
    )

    def contrast(self, data: DataSpec, batch_size: int) -> Contrast:
        """Compare an anchor with both views of the other rows."""
        return Contrast(2 * (batch_size - 1))


class SimCLR(Method):
    """NT-Xent over both views of all rows: 2N - 1 candidates for each of 2N vectors.

    Equation 1 of arXiv 2002.05709. For data of kind ``texts``, the views are the sentence under
    two dropout masks; for ``pairs``, anchor and positive, each used as the anchor once. The
    projector is dropped when the encoder is saved. The BatchNorm of ``batch_norm`` is that of
    ``projection_head`` in
    https://github.com/google-research/simclr/blob/244e7128004c5fd3c7805cf3135c79baa6c3bb96/model_util.py

    Examples:
        >>> str(SimCLRConfig().contrast(DataSpec("texts"), 64))
        '126 negatives per anchor'
    """

    name = "simclr"
    paper = Paper(
        "A Simple Framework for Contrastive Learning of Visual Representations", "2002.05709", 2020
    )
    reads = ("texts", "pairs")
    Config = SimCLRConfig

    options: SimCLRConfig

    def __init__(self, encoder: SentenceEncoder, config: SimCLRConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        self.projector = relu_layers(
            [dim, config.hidden_size or dim, config.projection_size],
            batch_norm=config.batch_norm,
            last_norm=config.batch_norm,
        )

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute NT-Xent of the projections of (B, 2, d).

        Logs ``contrastive_loss`` and ``positive_cosine``, the mean cosine of the projected views.

        Raises:
            ConfigError: the batch has one row.
        """
        projections = self.projector(embeddings.flatten(0, 1)).view(*batch.shape, -1)
        first, second = projections.unbind(1)
        loss = nt_xent(batch.to_contrastive(projections, self.options.temperature))
        logs: dict[str, float | Tensor] = {
            "contrastive_loss": loss.detach(),
            "positive_cosine": cosine_similarity(first, second).mean().detach(),
        }
        return MethodOutput(loss=loss, logs=logs)
