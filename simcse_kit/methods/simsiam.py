"""SimSiam: a predictor and a stop-gradient, and neither negatives nor momentum (2011.10566)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import Tensor

from simcse_kit.losses.prediction import negative_cosine
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.collapse import CollapseWatch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig
from simcse_kit.methods.common.heads import relu_layers

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SimSiam", "SimSiamConfig"]


class SimSiamConfig(DropoutConfig):
    """Options of SimSiam; the defaults are those of the paper for ImageNet."""

    needs_negatives: ClassVar[bool] = False

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
        description="no gradient to what is predicted; false is the paper's ablation, which "
        "collapses",
    )


class SimSiam(Method):
    """No negatives: a predictor turns the projection of one view into that of the other.

    The projector has three layers with BatchNorm after each, the last without scale and shift; the
    predictor two, with BatchNorm in its hidden layer. Both see one view of the whole batch at a
    time, and are gone when the encoder is saved. Collapse is watched for.

    Data of kind ``texts``: the views are a sentence twice, under two dropout masks. Of ``pairs``:
    anchor and positive. The paper keeps the predictor's learning rate constant; here it follows
    the schedule of all weights.
    """

    name: ClassVar[str] = "simsiam"
    paper: ClassVar[Paper] = Paper(
        title="Exploring Simple Siamese Representation Learning", arxiv="2011.10566", year=2020
    )
    reads: ClassVar[tuple[Kind, ...]] = ("texts", "pairs")
    collapse_is_lowest: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = SimSiamConfig

    options: SimSiamConfig

    def __init__(self, encoder: SentenceEncoder, config: SimSiamConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        out = config.projection_size or dim
        self.projector = relu_layers([dim, dim, dim, out], batch_norm=True, last_norm=True)
        narrow = config.predictor_size or max(1, out // 4)
        self.predictor = relu_layers([out, narrow, out], batch_norm=True)
        self.watch = CollapseWatch(
            self.name,
            "try a lower training.learning_rate or a larger --batch-size"
            + ("" if config.stop_gradient else ", set method.stop_gradient back to true"),
        )

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Negative cosine of (B, 2, d), the mean of both directions; -1 at best.

        Logs ``prediction_loss``, and how far apart the sentences lie, as
        :class:`~simcse_kit.methods.common.collapse.CollapseWatch` says.
        """
        first, second = (self.projector(embeddings[:, view]) for view in (0, 1))
        stop = self.options.stop_gradient
        loss = (
            negative_cosine(self.predictor(first), second, stop_gradient=stop)
            + negative_cosine(self.predictor(second), first, stop_gradient=stop)
        ) / 2
        logs: dict[str, float | Tensor] = {"prediction_loss": loss.detach()}
        return MethodOutput(loss=loss, logs=logs | self.watch(embeddings[:, 0], first))
