"""What a training method is: an encoder, a loss, and the state they need, in one module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from torch import Tensor, nn

from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.text.readers import Kind

__all__ = [
    "Batch",
    "Method",
    "MethodConfig",
    "MethodOutput",
    "Paper",
    "check_reads",
    "parse_config",
]

_ROWS = {
    "texts": "one sentence a row",
    "pairs": "two texts a row (anchor, positive)",
    "triplets": "three or more texts a row (anchor, positive, hard negatives)",
    "labelled": "two texts and a number a row (anchor, other, label)",
    "documents": "sentences in order, a blank line after each document",
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
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    encoder: SentenceEncoder

    def __init__(self, encoder: SentenceEncoder, config: MethodConfig):
        super().__init__()
        self.encoder = encoder
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
    def loss_reference(cls, batch_size: int, kind: Kind = "texts", negatives: int = 0) -> float:
        """The loss of an encoder that gives all sentences one vector: ln of the candidates.

        A loss that stays there has learnt nothing. Arguments as in :meth:`negatives_per_anchor`.
        """
        return math.log(1 + cls.negatives_per_anchor(batch_size, kind, negatives))


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
