"""Base class of training methods: an encoder, a loss and their state in one module."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

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
    """Result of one training step.

    Args:
        loss: scalar to minimise.
        logs: name -> number to log; tensors are detached scalars.
    """

    loss: Tensor
    logs: dict[str, float | Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """Title, arXiv id and year of the paper that introduced a method."""

    title: str
    arxiv: str
    year: int

    def __str__(self) -> str:
        return f"{self.title} (arXiv {self.arxiv})"


class Method(nn.Module):
    """A training method. Heads and state are submodules and buffers of the method.

    The optimizer, the device, distributed training and the checkpoints therefore cover all of it.
    A subclass sets the class attributes, writes :meth:`loss` and, if necessary, overrides
    :meth:`layout` and :meth:`embed`. One training step calls :meth:`layout`, :meth:`embed` for
    all rows, and :meth:`loss`: either at once, in :meth:`forward`, or with the rows in chunks
    (gradient caching). Both give the same result under these conditions:

    - :meth:`embed` treats every row independently and changes no state; it runs up to twice for a
      row. Computations over several rows, such as a BatchNorm head, belong in :meth:`loss`.
    - :meth:`layout` and :meth:`loss` run once per batch. State, such as a queue of keys, is
      collected in :meth:`loss` and updated in :meth:`after_step`.
    - If the loss is not a function of the embeddings alone,
      :meth:`~simcse_kit.methods.common.config.MethodConfig.chunking_obstacle` returns why.

    On an accelerator the host should not read values from the device, because it would wait for all
    work there: :func:`~simcse_kit.utils.host_copies.host_copy` gives those of a batch at once.

    Args:
        encoder: the encoder to train; it is saved at the end.
        config: the options, an instance of ``Config``; available as ``options``.

    Attributes:
        views_are_equal: whether :meth:`layout` found both views of a sentence to be equal.

    Examples:
        >>> class Squared(Method):
        ...     def loss(self, embeddings, batch):
        ...         return MethodOutput((embeddings[:, 0] - embeddings[:, 1]).square().mean())
        >>> Squared.name, Squared.reads
        ('Squared', ('texts',))
    """

    name: ClassVar[str]
    """Name in messages; by default that of the class."""
    paper: ClassVar[Paper | None] = None
    reads: ClassVar[tuple[Kind, ...]] = ("texts",)
    """Kinds of training data that the method can read."""
    collapse_is_lowest: ClassVar[bool] = False
    """Whether the loss is lowest when all vectors are equal, so that it cannot choose a checkpoint.
    """
    loss_changes_with_state: ClassVar[bool] = False
    """Whether later steps add terms to the loss, such as those of a queue or of clusters, so that
    the loss of held-out rows before the first step cannot be compared with later ones."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    encoder: SentenceEncoder

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def __init__(self, encoder: SentenceEncoder, config: MethodConfig):
        super().__init__()
        self.encoder = encoder
        dropout: float | None = getattr(config, "dropout", None)
        if dropout is not None:
            encoder.set_dropout(dropout)
        self.views_are_equal = False
        self._dropout_checked = False
        # TRAP: not `config`, which the trainer treats as a transformers configuration and modifies.
        self.options = config
        self.register_load_state_dict_pre_hook(_drop_retired_keys)  # type: ignore[no-untyped-call]

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
        """Embed rows with one forward pass of the encoder, then with the heads of the method.

        Args:
            input_ids: (R, L) int64.
            attention_mask: (R, L), 0 at padding.
            views: (R,) int64, the number of each row's view; used by methods with two encoders.

        Returns:
            (R, d), not normalised.
        """
        embeddings: Tensor = self.encoder(input_ids, attention_mask)
        return embeddings

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the loss of one batch.

        Args:
            embeddings: (B, V, d), from :meth:`embed`.
            batch: (B, V) views, from :meth:`layout`.
        """
        raise NotImplementedError

    def forward(self, **fields: Any) -> MethodOutput:
        """Compute the loss of one batch, with all rows in one forward pass of the encoder.

        Args:
            **fields: the fields of :class:`~simcse_kit.methods.common.batch.Batch`.
        """
        batch = self.layout(Batch(**fields))
        embeddings = self.embed(*batch.rows(), batch.view_numbers())
        return self.loss(embeddings.view(*batch.shape, -1), batch)

    def after_step(self, progress: float) -> None:
        """Update the state after an optimizer step.

        Args:
            progress: completed share of the training, from 0 to 1.
        """

    @property
    def monitored_head(self) -> nn.Module | None:
        """A projector that the collapse monitor measures too; None to measure embeddings alone."""
        return None

    def companions(self) -> Mapping[str, SentenceEncoder]:
        """Return further encoders to save, by the name of the subfolder for each."""
        return {}


def _drop_retired_keys(_module: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    """Let checkpoints of version 0.1 load, in which BYOL and SimSiam kept first statistics."""
    state.pop("watch.start", None)
