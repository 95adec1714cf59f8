"""PromptBERT: the embedding is the state at the mask token of a template (arXiv 2201.04337)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from simcse_kit.encoder.backbone import position_limit
from simcse_kit.encoder.row_lengths import lengths_of
from simcse_kit.encoder.tokenization import Template, check_template
from simcse_kit.errors import ConfigError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.common.masking import padded_mask
from simcse_kit.utils.host_copies import host_copy, send

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["PromptBERT", "PromptBERTConfig", "exchange"]


class PromptBERTConfig(MethodConfig):
    """Options of PromptBERT, with the paper's defaults for unsupervised BERT."""

    template: str = Field(
        default='This sentence of "[X]" means [MASK].',
        description="template of anchors, and of every sentence after training: [X] is the "
        "sentence, [MASK] the token whose state is the embedding",
    )
    second_template: str = Field(
        default='This sentence : "[X]" means [MASK].',
        description="template of positives and hard negatives",
    )
    remove_bias: bool = Field(
        default=True,
        description="subtract the embedding of the template without a sentence; in training only",
    )
    temperature: float = Field(
        default=0.05, gt=0, description="temperature tau that divides the cosines"
    )
    head: Literal["mlp", "none"] = Field(
        default="mlp",
        description="layer between encoder and loss, in training only: linear + tanh, or none",
    )

    @field_validator("template", "second_template")
    @classmethod
    def _is_template(cls, value: str) -> str:
        try:
            return check_template(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None


class PromptBERT(Method):
    """Contrast of the same sentence in two prompt templates.

    The encoder puts every sentence into the first template and returns the state at the mask
    token, in training, in evaluation and after it is saved. The bias of a template is the state at
    the mask token without the sentence (template denoising in arXiv 2201.04337). It is subtracted
    in training only, as the paper does for the unsupervised model:
    https://github.com/kongds/Prompt-BERT/blob/165e47e7e6d87e75339124e3ecbfe6a0c126997e/prompt_bert/models.py#L79-L109

    For data of kind ``texts``, both views are made here. For ``pairs`` and ``triplets``, positives
    and hard negatives come from the data.

    Raises:
        ModelError: the tokenizer has no mask token, the encoder has a head, or its states depend
            on the padding and the bias is to be removed.
        ConfigError: the mask token has different positions in the two templates.

    Examples:
        >>> PromptBERTConfig(template="[X] means [MASK].").remove_bias
        True
    """

    name = "promptbert"
    paper = Paper("PromptBERT: Improving BERT Sentence Embeddings with Prompts", "2201.04337", 2022)
    reads = ("texts", "pairs", "triplets")
    Config = PromptBERTConfig

    options: PromptBERTConfig

    def __init__(self, encoder: SentenceEncoder, config: PromptBERTConfig):
        super().__init__(encoder, config)
        encoder.set_template(config.template)
        if config.remove_bias:
            encoder.require_padding(
                "removing the bias of a template", "set method.remove_bias to false"
            )
        first, second = (
            Template.of(text, encoder.tokenizer)
            for text in (config.template, config.second_template)
        )
        # All views go through the encoder together, which reads one position.
        if first.place != second.place:
            raise ConfigError(
                f"method.template has its mask token {_where(first)} and method.second_template "
                f"{_where(second)}; write both templates with it in the same position"
            )
        self._templates = first, second
        self.head: nn.Module | None = (
            mlp_head(encoder.embedding_dim) if config.head == "mlp" else None
        )

    def layout(self, batch: Batch) -> Batch:
        """Return (B, 2 or more, L) views, all but the first in the second template."""
        if batch.shape[1] == 1:
            batch = batch.repeat_views(2)
        # On the host, so that the new lengths are known without waiting for the device.
        device, batch = batch.text_ids.device, batch.on_host()
        examples, views = batch.shape
        limit = position_limit(self.encoder.backbone)
        ids, mask = exchange(
            *batch.rows(),
            batch.view_numbers() > 0,
            *self._templates,
            pad_id=self.encoder.tokenizer.pad_token_id,
            most=limit,
        )
        return replace(
            batch,
            input_ids=ids.view(examples, views, -1),
            attention_mask=mask.view(examples, views, -1),
        ).to(device)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): the state at the mask token minus its bias, then the head."""
        embeddings = super().embed(input_ids, attention_mask, views)
        if self.options.remove_bias:
            embeddings = embeddings - self._bias(input_ids, attention_mask, views)
        return embeddings if self.head is None else self.head(embeddings)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute InfoNCE of anchors, positives and hard negatives (B, V, d).

        Logs ``contrastive_loss``, ``positive_cosine`` and ``accuracy``.

        Raises:
            ConfigError: the batch has no negatives.
        """
        terms = info_nce(batch.to_contrastive(embeddings, self.options.temperature))
        return MethodOutput(loss=terms.loss, logs=terms.logs())

    def _bias(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Return (R, d), the state at the mask token if no token attends to the sentence.

        The tokens of the template keep their positions around a sentence of this length. The bias
        depends on template and length alone, so it is computed once for each pair, with gradient.
        """
        lengths = torch.tensor(lengths_of(attention_mask))
        second = host_copy(views) > 0
        kinds, kind = torch.unique(lengths * 2 + second, return_inverse=True)
        row = torch.empty_like(kinds).scatter_(0, kind, torch.arange(len(kind)))
        lengths, is_second = lengths[row], second[row]
        first, other = self._templates
        heads = torch.where(is_second, len(other.head), len(first.head))
        tails = torch.where(is_second, len(other.tail), len(first.tail))
        column = torch.arange(input_ids.shape[1])
        of_template = (column < heads[:, None]) | (column >= (lengths - tails)[:, None])
        mask = (of_template & (column < lengths[:, None])).to(attention_mask.dtype)
        places = lengths + first.place if first.place < 0 else torch.full_like(lengths, first.place)
        number = torch.arange(len(row))
        row, mask, places, number, kind = (
            send(part, input_ids.device) for part in (row, mask, places, number, kind)
        )
        states = self.encoder.backbone(
            input_ids=input_ids[row], attention_mask=padded_mask(self.encoder.backbone, mask)
        ).last_hidden_state
        biases: Tensor = states[number, places]
        return biases[kind]


def _where(template: Template) -> str:
    if template.place < 0:
        return f"{-template.place} tokens from the end"
    return f"{template.place + 1} tokens from the start"


def exchange(
    input_ids: Tensor,
    attention_mask: Tensor,
    rows: Tensor,
    old: Template,
    new: Template,
    *,
    pad_id: int,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Move sentences from one template to another.

    Args:
        input_ids: (R, L) int64, padded on the right, all in the old template; not modified.
        attention_mask: (R, L), 0 at padding.
        rows: (R,) bool, True for the rows to move.
        old: the current template.
        new: the template for ``rows``.
        pad_id: id of the padding token.
        most: maximum length of a row; longer sentences are truncated. None for no limit.

    Returns:
        Ids and mask, both (R, L'), padded to the longest row.
    """
    device = input_ids.device
    head, tail = (
        torch.tensor(ids, dtype=torch.int64, device=device) for ids in (new.head, new.tail)
    )
    taken = len(head) + len(tail)
    inside = attention_mask.sum(dim=1) - len(old.head) - len(old.tail)
    if most is not None:
        inside = inside.clamp_max(most - taken)
    lengths = torch.where(rows, inside + taken, attention_mask.sum(dim=1))
    column = torch.arange(int(lengths.max()), device=device).expand(len(input_ids), -1)
    end = (len(head) + inside)[:, None]
    # Out of range only at the template, which is filled in below.
    source = torch.where(rows[:, None], column - len(head) + len(old.head), column)
    ids = input_ids.gather(1, source.clamp(0, input_ids.shape[1] - 1))
    if len(head):
        at_head = rows[:, None] & (column < len(head))
        ids = torch.where(at_head, head[column.clamp_max(len(head) - 1)], ids)
    if len(tail):
        at_tail = rows[:, None] & (column >= end)
        ids = torch.where(at_tail, tail[(column - end).clamp(0, len(tail) - 1)], ids)
    mask = column < lengths[:, None]
    return ids.masked_fill(~mask, pad_id), mask.to(attention_mask.dtype)
