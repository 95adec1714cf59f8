"""What a training method is: an encoder, a loss, and the state they need, in one module."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from torch import Tensor, nn

from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.text.readers import Kind

__all__ = [
    "Batch",
    "DropoutConfig",
    "Method",
    "MethodConfig",
    "MethodOutput",
    "Paper",
    "check_batch",
    "check_reads",
    "embed_apart",
    "negatives_text",
    "parse_config",
]

logger = logging.getLogger(__name__)

_ROWS = {
    "texts": "one sentence a row",
    "pairs": "two texts a row (anchor, positive)",
    "triplets": "three or more texts a row (anchor, positive, hard negatives)",
    "labelled": "two texts and a number a row; data.label names the column of the number",
    "documents": "sentences in order, a blank line after each document; data.documents = 1 or more",
}


@dataclass(frozen=True)
class Batch:
    """B examples in V views of at most L tokens.

    Args:
        input_ids: (B, V, L) int64, laid out by :meth:`Method.views`.
        attention_mask: (B, V, L), 0 at padding.
        text_ids: (B, V) int64, hashes of the texts.
        view_mask: (B, V) bool, False where a text is absent, such as a hard negative;
            ``input_ids`` holds a dummy sentence there.
        labels: (B,) float32, the label of every row; None for data without labels.
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    view_mask: Tensor
    labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """B and V."""
        examples, views = self.text_ids.shape
        return examples, views

    def rows(self) -> tuple[Tensor, Tensor]:
        """Ids and mask of all views of all examples, both (B·V, L); example by example."""
        return self.input_ids.flatten(0, 1), self.attention_mask.flatten(0, 1)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def repeat_views(self, times: int) -> Batch:
        """Every view ``times`` times in a row: (B, V·times, L)."""
        return self.take_views([view for view in range(self.shape[1]) for _ in range(times)])

    def take_views(self, views: Sequence[int]) -> Batch:
        """The views with these numbers, in this order: (B, len(views), L)."""
        wanted = torch.tensor(views, device=self.text_ids.device)
        # Labels belong to the row and have no axis of views.
        return self._each(lambda part: part.index_select(1, wanted) if part.dim() > 1 else part)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        given = {n: tensor for n, tensor in vars(self).items() if tensor is not None}
        return Batch(**{name: change(tensor) for name, tensor in given.items()})

    def view_numbers(self) -> Tensor:
        """(B·V,) int64: the view of every row of :meth:`rows`."""
        examples, views = self.shape
        return torch.arange(views, device=self.text_ids.device).repeat(examples)


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


class MethodConfig(BaseModel):
    """Base of every method's options: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1.0, which turns a slip into a temperature.
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if bool not in (annotation, *get_args(annotation)):
                raise ValueError("must not be true or false")
        return value


class DropoutConfig(MethodConfig):
    """Base of the options of methods whose views differ by dropout."""

    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="set every dropout of the encoder; unset keeps its own",
    )


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


def embed_apart(
    input_ids: Tensor,
    attention_mask: Tensor,
    others: Tensor,
    encode: Callable[[Tensor, Tensor], Tensor],
    encode_others: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Embed some rows with one encoder, the others with another.

    Args:
        input_ids: (R, L) int64.
        attention_mask: (R, L), 0 at padding.
        others: (R,) bool, the rows of ``encode_others``.
        encode: ids and mask of r rows to (r, d); not called for no rows.
        encode_others: the same for the other rows.

    Returns:
        (R, d) in the order of the rows.
    """
    rows = [(~others).nonzero().squeeze(1), others.nonzero().squeeze(1)]
    parts = [
        function(input_ids[part], attention_mask[part])
        for part, function in zip(rows, (encode, encode_others), strict=True)
        if len(part)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def check_batch(
    method: type[Method], options: MethodConfig, batch_size: int, kind: Kind, negatives: int = 0
) -> None:
    """Refuse a batch that a method cannot learn from. Needs no weights.

    Raises:
        ConfigError: there are no negatives, or one row where a method needs several, or the queue
            holds less than a batch, or the options do not fit the kind of data.
    """
    method.check_data(options, kind)
    if method.needs_negatives and method.negatives_per_anchor(batch_size, kind, negatives) < 1:
        raise ConfigError(
            f"training.batch_size is {batch_size}, which leaves {kind} no negatives to learn "
            "from; use --batch-size 2 or more"
        )
    if batch_size < 2 and not method.needs_negatives and kind != "labelled":
        raise ConfigError(
            f"training.batch_size is {batch_size}, but method {method.name!r} compares the rows "
            "of a batch in its BatchNorm layers; use --batch-size 2 or more"
        )
    size = method.queue_size(options)
    if 0 < size < batch_size:
        raise ConfigError(
            f"method.queue_size is {size}, less than a batch of {batch_size} brings; use "
            f"--set method.queue_size={batch_size} or more, or a smaller --batch-size"
        )


def negatives_text(
    method: type[Method], options: MethodConfig, batch_size: int, kind: Kind, negatives: int = 0
) -> str:
    """How many negatives an anchor meets, in words."""
    if not method.needs_negatives:
        return "no negatives"
    count = method.negatives_per_anchor(batch_size, kind, negatives)
    size = method.queue_size(options)
    return f"{count} negatives per anchor" + (f", up to {size} from the queue" if size else "")


def check_reads(method: type[Method], kind: str) -> None:
    """Refuse data that a method cannot read. Needs the class only, no weights.

    Raises:
        ConfigError: ``kind`` is not among ``method.reads``.
    """
    if kind in method.reads:
        return
    wanted = "; ".join(f"{known} = {_ROWS[known]}" for known in method.reads)
    raise ConfigError(
        f"method {method.name!r} cannot read {kind!r} data; it reads {', '.join(method.reads)} "
        f"({wanted}); choose the columns of the training file to match, or another method"
    )


def parse_config(method: type[Method], options: Mapping[str, Any]) -> MethodConfig:
    """The method's ``Config`` made of ``options``, with errors a user can act on.

    Raises:
        ConfigError: one line that names every unknown key and every value that is not allowed.
    """
    try:
        return method.Config.model_validate(dict(options))
    except ValidationError as error:
        fields = method.Config.model_fields
        problems = []
        for problem in error.errors(include_url=False):
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                names = list(fields)
                problems.append(
                    f"unknown key method.{key}{closest(key, names)}; known: {', '.join(names)}"
                )
                continue
            rule = problem["msg"].removeprefix("Value error, ")
            rule = rule.replace("Input should be", "must be", 1)
            default = fields[str(problem["loc"][0])].default
            problems.append(
                f"method.{key} = {problem['input']!r} is not allowed: {rule} (default {default!r})"
            )
        raise ConfigError(" | ".join(problems)) from None
