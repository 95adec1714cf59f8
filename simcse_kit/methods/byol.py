"""BYOL: prediction of a momentum network's projections (arXiv 2006.07733)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from simcse_kit.losses.prediction import normalized_mse
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.momentum import Momentum, cosine_momentum
from simcse_kit.methods.common.two_towers import embed_with_two

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["BYOL", "BYOLConfig"]


class BYOLConfig(DropoutConfig):
    """Options of BYOL, with the paper's defaults for ImageNet."""

    needs_negatives = False

    momentum: float = Field(
        default=0.996,
        ge=0,
        le=1,
        description="share of its weights that the target keeps at the start; rises to 1 along a "
        "half cosine",
    )
    hidden_size: int | None = Field(
        default=None,
        ge=1,
        description="hidden width of projector and predictor; unset: twice the encoder's width, "
        "as in the paper (4096)",
    )
    projection_size: int = Field(
        default=256, ge=1, description="width of the vectors that are predicted"
    )

    def collapse_remedy(self) -> str:
        """Return what to try if the embeddings collapse."""
        return "move method.momentum nearer to 1"


class BYOL(Method):
    """Prediction of a momentum network's projection of the other view, without negatives.

    The online network has encoder, projector and predictor. The target network is a moving
    average of encoder and projector, without gradient. Both views go through both networks, and
    the loss is symmetric (equation 2 of arXiv 2006.07733). Projector and predictor have
    BatchNorm and process one view of the whole batch at a time. Only the encoder is saved.

    For data of kind ``texts``, the views are the sentence twice, under dropout (in the target
    network too); for ``pairs``, anchor and positive.

    Examples:
        >>> BYOLConfig(momentum=0.99).collapse_remedy()
        'move method.momentum nearer to 1'
    """

    name = "byol"
    paper = Paper(
        "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", "2006.07733", 2020
    )
    reads = ("texts", "pairs")
    collapse_is_lowest = True
    Config = BYOLConfig

    options: BYOLConfig

    def __init__(self, encoder: SentenceEncoder, config: BYOLConfig):
        super().__init__(encoder, config)
        dim, out = encoder.embedding_dim, config.projection_size
        hidden = config.hidden_size or 2 * dim
        self.projector = relu_layers([dim, hidden, out], batch_norm=True)
        self.predictor = relu_layers([out, hidden, out], batch_norm=True)
        self.target_encoder = Momentum(encoder)
        self.target_projector = Momentum(self.projector)

    def layout(self, batch: Batch) -> Batch:
        """Return (B, 4, L): two views for the online network, and the same for the target."""
        return super().layout(batch).take_views([0, 1, 0, 1])

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): views 0 and 1 with the encoder, 2 and 3 with the target's."""
        return embed_with_two(
            input_ids, attention_mask, views, self.encoder, self.target_encoder, others=2
        )

    @property
    def monitored_head(self) -> nn.Module:
        """The projector, whose outputs collapse before the embeddings do."""
        return self.projector

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the normalised MSE of (B, 4, d), summed over both directions.

        Logs ``prediction_loss``.
        """
        projections = [self.projector(embeddings[:, view]) for view in (0, 1)]
        first, second = map(self.predictor, projections)
        to_first, to_second = (self.target_projector(embeddings[:, view]) for view in (2, 3))
        loss = normalized_mse(first, to_second) + normalized_mse(second, to_first)
        logs: dict[str, float | Tensor] = {"prediction_loss": loss.detach()}
        return MethodOutput(loss=loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Update the target network, with a momentum that rises to 1."""
        momentum = cosine_momentum(self.options.momentum, progress)
        self.target_encoder.follow(self.encoder, momentum)
        self.target_projector.follow(self.projector, momentum)
