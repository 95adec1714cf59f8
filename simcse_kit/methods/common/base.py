"""What a training method is: an encoder, a loss, and the state they need, in one module."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig

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
      :meth:`beyond_embeddings`.

    Args:
        encoder: the encoder to train; it is what gets saved at the end.
        config: an instance of the class's ``Config``; kept as ``options``.

    Attributes:
        views_are_equal: whether :meth:`two_views` found no dropout to tell the views apart.
    """

    name: ClassVar[str]
    """Key in the table of methods."""
    paper: ClassVar[Paper]
    reads: ClassVar[tuple[Kind, ...]]
    """The kinds of training data it can read."""
    needs_negatives: ClassVar[bool] = True
    """Whether an anchor without negatives has nothing to learn from."""
    collapse_is_lowest: ClassVar[bool] = False
    """Whether its loss is lowest where all vectors are alike, so that it chooses no checkpoint."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    encoder: SentenceEncoder

    def __init__(self, encoder: SentenceEncoder, config: MethodConfig):
        super().__init__()
        self.encoder = encoder
        if isinstance(config, DropoutConfig) and config.dropout is not None:
            encoder.set_dropout(config.dropout)
        self.views_are_equal = False
        self._dropout_checked = False
        # Not `config`: the trainer takes that for a transformers configuration and writes to it.
        self.options = config

    @classmethod
    def views(cls, kind: Kind, negatives: int = 0) -> tuple[int, ...]:
        """How the collator lays out a row: view v holds text ``views[v]`` of the example.

        Texts ``(0,)``, pairs and labelled ``(0, 1)``, triplets ``(0, 1, 2, …)``; documents
        ``(0, 1, …)``, a sentence and those that come next. A method that wants two separately
        prepared copies of a sentence answers ``(0, 0)``.

        Args:
            kind: the kind of the data.
            negatives: the most hard negatives a row has, or next sentences of documents; 0 for
                other kinds. A row with fewer is filled with a dummy sentence and marked in
                ``view_mask``.
        """
        more = max(negatives, 1)
        counts = {"texts": 1, "pairs": 2, "labelled": 2, "triplets": 2 + more}
        return tuple(range(counts.get(kind, 1 + more)))

    @classmethod
    def beyond_embeddings(cls, options: MethodConfig) -> str | None:  # noqa: ARG003
        """Why the loss is no function of the embeddings alone; None where it is one.

        Such a method cannot be trained in chunks. The answer follows "because".

        Args:
            options: the method's options; no weights are needed.
        """
        if cls.loss is Method.loss:
            return "its loss is not written as a function of the embeddings"
        return None

    def layout(self, batch: Batch) -> Batch:
        """The views to embed, made of those that the collator gave; by default the same."""
        return batch

    def two_views(self, batch: Batch) -> Batch:
        """A single view, of kind ``texts``, taken twice: (B, 1, L) -> (B, 2, L).

        More views stay as they are. Twins under dropout differ, since it is drawn for each
        element; that there is none is said once.
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

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:  # noqa: ARG002
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

    @classmethod
    def negatives_per_anchor(cls, batch_size: int, kind: Kind, negatives: int = 0) -> int:
        """Negatives one anchor meets, for the line logged at the start.

        Args:
            batch_size: rows in one forward pass.
            kind: the kind of the data.
            negatives: the most hard negatives a row has.
        """
        raise NotImplementedError

    @classmethod
    def check_data(cls, options: MethodConfig, kind: Kind) -> None:
        """Refuse a kind of data that the method reads, but not with these options.

        Args:
            options: the method's options; no weights are needed.
            kind: the kind of the data.

        Raises:
            ConfigError: as subclasses say.
        """

    @classmethod
    def check_labels(cls, options: MethodConfig, labels: Tensor) -> None:
        """Refuse labels that the method cannot learn from with these options.

        Args:
            options: the method's options; no weights are needed.
            labels: (n,) float, of some rows or of all.

        Raises:
            DataError: as subclasses say.
        """

    @classmethod
    def unused(cls, options: MethodConfig, kind: Kind, negatives: int = 0) -> list[str]:  # noqa: ARG003
        """What was given and changes nothing with these options and this data; a sentence each.

        Args:
            options: the method's options; no weights are needed.
            kind: the kind of the data.
            negatives: the most hard negatives or next sentences of a row.
        """
        return []

    @classmethod
    def other_models(cls, options: MethodConfig) -> list[str]:
        """Names of further models that the method opens."""
        names = (getattr(options, key, None) for key in ("guide", "generator"))
        return [name for name in names if name is not None]

    @classmethod
    def queue_size(cls, options: MethodConfig) -> int:  # noqa: ARG003
        """Keys of earlier batches that an anchor may meet besides; 0 without a queue.

        Args:
            options: the method's options; no weights are needed.
        """
        return 0

    @classmethod
    def loss_reference(
        cls, batch_size: int, kind: Kind = "texts", negatives: int = 0
    ) -> float | None:
        """The loss of an encoder that gives all sentences one vector: ln of the candidates.

        A loss that stays there has learnt nothing. None where there are no candidates to tell
        apart. A method whose candidates become more, such as one with a queue, logs ``ln_batch``
        itself. Arguments as in :meth:`negatives_per_anchor`.
        """
        if not cls.needs_negatives:
            return None
        return math.log(1 + cls.negatives_per_anchor(batch_size, kind, negatives))

    def companions(self) -> Mapping[str, SentenceEncoder]:
        """Further encoders to save, each in a folder of that name beside :attr:`encoder`."""
        return {}
