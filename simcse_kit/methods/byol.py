"""BYOL: predict what a slowly moving copy makes of the other view (arXiv 2006.07733)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import Tensor

from simcse_kit.losses.prediction import normalized_mse
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.collapse import CollapseWatch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.momentum import Momentum, cosine_momentum
from simcse_kit.methods.common.two_towers import embed_apart

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["BYOL", "BYOLConfig"]


class BYOLConfig(DropoutConfig):
    """Options of BYOL; the defaults are those of the paper for ImageNet."""

    needs_negatives: ClassVar[bool] = False

    momentum: float = Field(
        default=0.996,
        ge=0,
        le=1,
        description="share of itself that the target keeps at the start; it rises to 1 by half a "
        "cosine",
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


class BYOL(Method):
    """No negatives: the online network predicts the target network's vector of the other view.

    Online: encoder, projector, predictor. Target: a moving average of encoder and projector,
    without gradient. Both views go through both networks, and the loss is symmetric. Projector and
    predictor have BatchNorm and see one view of the whole batch at a time. Collapse is watched
    for. All but the encoder is gone when it is saved.

    Data of kind ``texts``: the views are a sentence twice, under dropout (in the target too). Of
    ``pairs``: anchor and positive.
    """

    name: ClassVar[str] = "byol"
    paper: ClassVar[Paper] = Paper(
        title="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        arxiv="2006.07733",
        year=2020,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("texts", "pairs")
    collapse_is_lowest: ClassVar[bool] = True
    Config: ClassVar[type[MethodConfig]] = BYOLConfig

    options: BYOLConfig

    def __init__(self, encoder: SentenceEncoder, config: BYOLConfig):
        super().__init__(encoder, config)
        dim, out = encoder.embedding_dim, config.projection_size
        hidden = config.hidden_size or 2 * dim
        self.projector = relu_layers([dim, hidden, out], batch_norm=True)
        self.predictor = relu_layers([out, hidden, out], batch_norm=True)
        self.target_encoder = Momentum(encoder)
        self.target_projector = Momentum(self.projector)
        self.watch = CollapseWatch(
            self.name,
            "try a lower training.learning_rate, a method.momentum nearer to 1, or a larger "
            "--batch-size",
        )

    def layout(self, batch: Batch) -> Batch:
        """Two views for the online network, then the same two for the target: (B, 4, L)."""
        return super().layout(batch).take_views([0, 1, 0, 1])

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """(R, L) -> (R, d): views 0 and 1 by the encoder, 2 and 3 by the target's."""
        return embed_apart(input_ids, attention_mask, views > 1, self.encoder, self.target_encoder)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Normalised MSE of (B, 4, d), from each view to the other, summed.

        Logs ``prediction_loss``, and how far apart the sentences lie, as
        :class:`~simcse_kit.methods.common.collapse.CollapseWatch` says.
        """
        projections = [self.projector(embeddings[:, view]) for view in (0, 1)]
        first, second = map(self.predictor, projections)
        to_first, to_second = (self.target_projector(embeddings[:, view]) for view in (2, 3))
        loss = normalized_mse(first, to_second) + normalized_mse(second, to_first)
        logs: dict[str, float | Tensor] = {"prediction_loss": loss.detach()}
        return MethodOutput(loss=loss, logs=logs | self.watch(embeddings[:, 0], projections[0]))

    def after_step(self, progress: float) -> None:
        """The target follows, the more slowly the more of the training is done."""
        momentum = cosine_momentum(self.options.momentum, progress)
        self.target_encoder.follow(self.encoder, momentum)
        self.target_projector.follow(self.projector, momentum)
