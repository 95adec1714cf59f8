"""MoCo: a slowly moving key encoder and a queue of keys (arXiv 1911.05722 and 2003.04297)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from simcse_kit.losses.info_nce_queue import queued_info_nce
from simcse_kit.losses.moco import momentum_contrast
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.momentum import Momentum
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.methods.common.two_towers import embed_apart

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["MoCo", "MoCoConfig"]

_TEMPERATURES = {"v1": 0.07, "v2": 0.2}


class MoCoConfig(DropoutConfig):
    """Options of MoCo; the defaults are those of the papers for ImageNet."""

    version: Literal["v1", "v2"] = Field(
        default="v2",
        description="v1: linear head; v2: head with a hidden layer (and training.schedule cosine)",
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="tau, divides the cosines; unset: 0.2 for v2, 0.07 for v1, as in the papers",
    )
    momentum: float = Field(
        default=0.999, ge=0, le=1, description="share of itself that the key encoder keeps"
    )
    queue_size: int = Field(
        default=65536, ge=1, description="K, keys of earlier batches that are the negatives"
    )
    in_batch: bool = Field(
        default=False,
        description="the keys of the other rows are negatives too; false, as in the paper, has "
        "them only as long as the queue is empty",
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
    """A query against its key and the keys of earlier batches.

    The key encoder and its head are a moving average of those that are trained; they get no
    gradient, and dropout acts in them as in the others. The queue begins empty, while the paper
    begins with random vectors: in the first step, and in the loss of held-out rows, which must not
    depend on how full the queue is, the keys of the other rows are the negatives. Keys of the same
    text as a query or as its key do not count for it.

    Data of kind ``texts``: query and key are one sentence under two dropout masks. Of ``pairs``:
    the anchor asks, the positive is the key. Heads and key encoder are gone when the encoder is
    saved. Transformers have no BatchNorm, so that nothing need be shuffled.
    """

    name: ClassVar[str] = "moco"
    paper: ClassVar[Paper] = Paper(
        title="Momentum Contrast for Unsupervised Visual Representation Learning",
        arxiv="1911.05722",
        year=2019,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("texts", "pairs")
    Config: ClassVar[type[MethodConfig]] = MoCoConfig

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
        """(R, L) -> (R, d): view 0 by the encoder, view 1 by the key encoder without gradient."""
        return embed_apart(input_ids, attention_mask, views > 0, self.encoder, self.key_encoder)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """The loss of the queries (B, 0, d); the keys (B, 1, d) enter the queue after the step.

        Logs ``contrastive_loss``, ``positive_cosine``, ``accuracy``, ``queue`` (keys in it) and
        ``ln_batch``, the logarithm of the candidates that a query has met.

        Raises:
            ConfigError: an empty queue and a batch of one row.
        """
        queries, keys = self.head(embeddings[:, 0]), self.key_head(embeddings[:, 1])
        query_ids, key_ids = batch.text_ids.unbind(1)
        trains = self.training and torch.is_grad_enabled()
        queue, queue_ids = self.queue.contents()
        if not trains:
            queue, queue_ids = queue[:0], queue_ids[:0]
        with_batch = self.options.in_batch or not len(queue)
        if with_batch:
            terms = queued_info_nce(
                queries,
                keys,
                queue,
                temperature=self.temperature,
                anchor_ids=query_ids,
                positive_ids=key_ids,
                queue_ids=queue_ids,
            )
        else:
            terms = momentum_contrast(
                queries,
                keys,
                queue,
                temperature=self.temperature,
                query_ids=query_ids,
                key_ids=key_ids,
                queue_ids=queue_ids,
            )
        if trains:
            self.queue.push(keys, key_ids)
        candidates = len(queue) + (len(keys) if with_batch else 1)
        logs = terms.logs() | {
            "queue": float(len(queue)),
            "ln_batch": math.log(candidates),
        }
        return MethodOutput(loss=terms.loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """The key encoder and its head follow; the queue takes in the keys of the step."""
        self.key_encoder.follow(self.encoder, self.options.momentum)
        self.key_head.follow(self.head, self.options.momentum)
        self.queue.advance()
