"""SimSiam: a predictor and a stop-gradient, without negatives (arXiv 2011.10566)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from simcse_kit.losses.prediction import negative_cosine
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.heads import relu_layers

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SimSiam", "SimSiamConfig"]


class SimSiamConfig(DropoutConfig):
    """Options of SimSiam, with the paper's defaults for ImageNet."""

    needs_negatives = False

    projection_size: int | None = Field(
        default=None,
        ge=1,
        description="width of the projections; unset: the encoder's width, as in the paper (2048)",
    )
    predictor_size: int | None = Field(
        default=None,
        ge=1,
        description="hidden width of the predictor; unset: a quarter of the projections' width, as "
        "in the paper (512)",
    )
    stop_gradient: bool = Field(
        default=True,
        description="no gradient through the predicted projections; false is the paper's ablation, "
        "which collapses",
    )

    def collapse_remedy(self) -> str | None:
        """Return what to try if the embeddings collapse."""
        return None if self.stop_gradient else "set method.stop_gradient back to true"


class SimSiam(Method):
    """Prediction of the projection of the other view, without negatives or momentum.

    The gradient is stopped at the predicted projection (equation 4 of arXiv 2011.10566). The
    projector has three layers with BatchNorm after each, the last without scale and shift; the
    predictor has two, with BatchNorm in its hidden layer. Both process one view of the whole batch
    at a time, and are dropped when the encoder is saved:
    https://github.com/facebookresearch/simsiam/blob/39ac33e618948b88cbe43a65e31f142537073e55/simsiam/builder.py#L21-L37

    For data of kind ``texts``, the views are the sentence under two dropout masks; for ``pairs``,
    anchor and positive. Deviation: the predictor's learning rate follows the schedule, while the
    paper keeps it constant.

    Examples:
        >>> SimSiamConfig(stop_gradient=False).collapse_remedy()
        'set method.stop_gradient back to true'
    """

    name = "simsiam"
    paper = Paper("Exploring Simple Siamese Representation Learning", "2011.10566", 2020)
    reads = ("texts", "pairs")
    collapse_is_lowest = True
    Config = SimSiamConfig

    options: SimSiamConfig

    def __init__(self, encoder: SentenceEncoder, config: SimSiamConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        out = config.projection_size or dim
        self.projector = relu_layers([dim, dim, dim, out], batch_norm=True, last_norm=True)
        narrow = config.predictor_size or max(1, out // 4)
        self.predictor = relu_layers([out, narrow, out], batch_norm=True)

    @property
    def monitored_head(self) -> nn.Module:
        """The projector, whose outputs collapse before the embeddings do."""
        return self.projector

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the negative cosine of (B, 2, d), the mean of both directions; at least -1.

        Logs ``prediction_loss``.
        """
        first, second = (self.projector(embeddings[:, view]) for view in (0, 1))
        stop = self.options.stop_gradient
        loss = (
            negative_cosine(self.predictor(first), second, stop_gradient=stop)
            + negative_cosine(self.predictor(second), first, stop_gradient=stop)
        ) / 2
        logs: dict[str, float | Tensor] = {"prediction_loss": loss.detach()}
        return MethodOutput(loss=loss, logs=logs)
