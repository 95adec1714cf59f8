"""MoCo: momentum contrast with a queue of keys (arXiv 1911.05722 and 2003.04297)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.moco import momentum_contrast
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.momentum import Momentum
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.methods.common.two_towers import embed_with_two

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["MoCo", "MoCoConfig"]

_TEMPERATURES = {"v1": 0.07, "v2": 0.2}


class MoCoConfig(DropoutConfig):
    """Options of MoCo, with the papers' defaults for ImageNet."""

    version: Literal["v1", "v2"] = Field(
        default="v2",
        description="v1: linear head; v2: head with a hidden layer (and training.schedule cosine)",
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="temperature tau that divides the cosines; unset: 0.2 for v2, 0.07 for v1, as "
        "in the papers",
    )
    momentum: float = Field(
        default=0.999, ge=0, le=1, description="share of its weights that the key encoder keeps"
    )
    queue_size: int = Field(
        default=65536, ge=1, description="K, number of keys of earlier batches, the negatives"
    )
    in_batch: bool = Field(
        default=False,
        description="use the keys of the other rows as negatives too; false, as in the paper, uses "
        "them only while the queue is empty",
    )
    hidden_size: int | None = Field(
        default=None,
        ge=1,
        description="hidden width of the v2 head; unset: the encoder's width, as in the paper "
        "(2048)",
    )
    projection_size: int = Field(
        default=128, ge=1, description="width of the vectors that the loss compares"
    )

    def unused(self, data: DataSpec) -> list[str]:
        """Report the width of a layer that version v1 does not have."""
        if self.version == "v2":
            return []
        return inert(self, "hidden_size", because="the head of v1 is one linear layer")


class MoCo(Method):
    """Contrast of a query with its key and with keys of earlier batches.

    Equation 1 of arXiv 1911.05722. The key encoder and its head are moving averages of the trained
    ones (equation 2); they get no gradient and use dropout. The queue starts empty, unlike the
    random vectors of the paper: in the first step, and in the loss of held-out rows, which must not
    depend on the state of the queue, the keys of the other rows are the negatives. Keys with the
    same text as a query or its key are not negatives of that query.

    For data of kind ``texts``, query and key are one sentence under two dropout masks; for
    ``pairs``, the anchor is the query and the positive is the key. Heads and key encoder are
    dropped when the encoder is saved. Transformers have no BatchNorm, so keys are not shuffled
    between devices. The head of v2 is that of
    https://github.com/facebookresearch/moco/blob/7397dfe146c7ca6bbb58e9c382498069178ba764/moco/builder.py#L34-L41

    Examples:
        >>> str(MoCoConfig(queue_size=4096).contrast(DataSpec("texts"), 64))
        '63 negatives per anchor, up to 4096 from the queue'
    """

    name = "moco"
    paper = Paper(
        "Momentum Contrast for Unsupervised Visual Representation Learning", "1911.05722", 2019
    )
    reads = ("texts", "pairs")
    loss_changes_with_state = True
    Config = MoCoConfig

    options: MoCoConfig

    def __init__(self, encoder: SentenceEncoder, config: MoCoConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        hidden = [config.hidden_size or dim] if config.version == "v2" else []
        self.head = relu_layers([dim, *hidden, config.projection_size])
        self.key_encoder = Momentum(encoder)
        self.key_head = Momentum(self.head)
        self.queue = KeyQueue(config.queue_size, config.projection_size)
        self.temperature = config.temperature or _TEMPERATURES[config.version]

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): view 0 with the encoder, view 1 with the key encoder."""
        return embed_with_two(
            input_ids, attention_mask, views, self.encoder, self.key_encoder, others=1
        )

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the loss of queries and keys (B, 2, d); the keys enter the queue after the step.

        Logs ``contrastive_loss``, ``positive_cosine``, ``accuracy``, ``queue`` (number of keys) and
        ``ln_batch`` (logarithm of the number of candidates).

        Raises:
            ConfigError: the queue is empty and the batch has one row.
        """
        queries, keys = self.head(embeddings[:, 0]), self.key_head(embeddings[:, 1])
        query_ids, key_ids = batch.text_ids.unbind(1)
        trains = self.training and torch.is_grad_enabled()
        queue, queue_ids = self.queue.contents()
        if not trains:
            queue, queue_ids = queue[:0], queue_ids[:0]
        with_batch = self.options.in_batch or not len(queue)
        contrast = ContrastiveBatch(
            queries,
            keys,
            temperature=self.temperature,
            anchor_ids=query_ids,
            positive_ids=key_ids,
            queue=queue,
            queue_ids=queue_ids,
        )
        terms = info_nce(contrast) if with_batch else momentum_contrast(contrast)
        if trains:
            self.queue.push(keys, key_ids)
        candidates = len(queue) + (len(keys) if with_batch else 1)
        logs = terms.logs() | {
            "queue": float(len(queue)),
            "ln_batch": math.log(candidates),
        }
        return MethodOutput(loss=terms.loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Update the key encoder and its head, and add the keys of the step to the queue."""
        self.key_encoder.follow(self.encoder, self.options.momentum)
        self.key_head.follow(self.head, self.options.momentum)
        self.queue.advance()
