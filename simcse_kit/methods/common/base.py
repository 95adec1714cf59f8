"""What a training method is: an encoder, a loss, and the state they need, in one module."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.contrast import DataSpec

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Method", "MethodOutput", "Paper"]

logger = logging.getLogger(__name__)


@dataclass
class MethodOutput:
    """One training step's result.

    Args:
        loss: the scalar to minimise.
        logs: name -> number to report; tensors are detached scalars.
    """

    loss: Tensor
    logs: dict[str, float | Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    arxiv: str
    year: int


class Method(nn.Module):
    """A training method. The method is the model: heads and state are submodules and buffers.

    So the optimizer, the device, distributed training and the checkpoint hold all of it.
    Subclasses set the class attributes and write :meth:`loss`, and where they need to
    :meth:`layout` and :meth:`embed`. One training step is :meth:`layout`, :meth:`embed` of all
    rows, :meth:`loss`: either in one piece, which is :meth:`forward`, or with the rows in chunks
    (gradient caching). So that both are the same:

    - :meth:`embed` treats every row by itself and changes no state. It runs up to twice for a
      row. What depends on other rows, such as a BatchNorm head, belongs in :meth:`loss`.
    - :meth:`layout` and :meth:`loss` run once for a batch. State, such as a queue of keys, is
      collected in :meth:`loss` and moved on in :meth:`after_step`.
    - A method whose loss is not a function of the embeddings says so in
      :meth:`MethodConfig.chunking_obstacle`.

    Args:
        encoder: the encoder to train; it is what gets saved at the end.
        config: an instance of the class's ``Config``; kept as ``options``.

    Attributes:
        views_are_equal: whether :meth:`layout` found both views of a sentence to be equal.
    """

    name: ClassVar[str]
    """Key in the table of methods."""
    paper: ClassVar[Paper]
    reads: ClassVar[tuple[Kind, ...]]
    """The kinds of training data it can read."""
    collapse_is_lowest: ClassVar[bool] = False
    """Whether its loss is lowest where all vectors are alike, so that it chooses no checkpoint."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    encoder: SentenceEncoder

    def __init__(self, encoder: SentenceEncoder, config: MethodConfig):
        super().__init__()
        self.encoder = encoder
        dropout: float | None = getattr(config, "dropout", None)
        if dropout is not None:
            encoder.set_dropout(dropout)
        self.views_are_equal = False
        self._dropout_checked = False
        # Not `config`: the trainer takes that for a transformers configuration and writes to it.
        self.options = config

    @classmethod
    def views(cls, data: DataSpec) -> tuple[int, ...]:
        """Return which text of a row each view holds; by default every text once, in order.

        A method that needs two separately prepared copies of a sentence returns ``(0, 0)``. A row
        with fewer hard negatives than the others is filled with a dummy sentence, which
        ``view_mask`` marks.
        """
        return data.columns

    def layout(self, batch: Batch) -> Batch:
        """Return the views to embed: by default a single view is taken twice.

        (B, 1, L) becomes (B, 2, L); two or more views stay as they are. The twins differ by
        dropout, which is drawn for every element. If the encoder has no dropout, that is logged
        once.
        """
        if batch.shape[1] > 1:
            return batch
        if self.training and not self._dropout_checked:
            self._dropout_checked = True
            if not any(rate > 0 for rate in self.encoder.dropouts().values()):
                self.views_are_equal = True
                logger.warning(
                    "every dropout of the encoder is 0, so both views of a sentence are equal and "
                    "method %r has nothing to learn from; use --set method.dropout=0.1",
                    self.name,
                )
        return batch.repeat_views(2)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embeddings as the loss sees them: one encoder forward, then the heads of the method.

        Args:
            input_ids: (R, L) int64.
            attention_mask: (R, L), 0 at padding.
            views: (R,) int64, which view of its example each row is; for methods that treat them
                differently, such as those with a momentum encoder.

        Returns:
            (R, d), not normalised.
        """
        embeddings: Tensor = self.encoder(input_ids, attention_mask)
        return embeddings

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """The loss of the embeddings of one batch.

        Args:
            embeddings: (B, V, d), as :meth:`embed` gives them.
            batch: the (B, V) views that were embedded, as :meth:`layout` gave them.
        """
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        text_ids: Tensor,
        view_mask: Tensor,
        labels: Tensor | None = None,
    ) -> MethodOutput:
        """The loss of one batch, with all rows in one forward pass of the encoder.

        Args:
            input_ids: (B, V, L) int64; this and the others as in :class:`Batch`.
            attention_mask: (B, V, L).
            text_ids: (B, V) int64.
            view_mask: (B, V) bool.
            labels: (B,) float32, or None.
        """
        batch = self.layout(Batch(input_ids, attention_mask, text_ids, view_mask, labels))
        embeddings = self.embed(*batch.rows(), batch.view_numbers())
        return self.loss(embeddings.view(*batch.shape, -1), batch)

    def after_step(self, progress: float) -> None:
        """Called after every optimizer step.

        Args:
            progress: share of the training that is done, 0 to 1.
        """

    def companions(self) -> Mapping[str, SentenceEncoder]:
        """Further encoders to save, each in a folder of that name beside :attr:`encoder`."""
        return {}
