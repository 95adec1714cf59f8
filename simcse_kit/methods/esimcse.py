"""ESimCSE: word repetition and a momentum queue (arXiv 2109.04380)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.encoder.backbone import position_limit
from simcse_kit.encoder.inference import evaluation_mode
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.common.masking import ordinary_tokens
from simcse_kit.methods.common.momentum import Momentum
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.methods.common.two_towers import embed_with_two

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["ESimCSE", "ESimCSEConfig", "repeat_tokens"]

# The views after `layout`.
_ANCHOR, _POSITIVE, _KEY = 0, 1, 2


class ESimCSEConfig(DropoutConfig):
    """Options of ESimCSE, with the paper's defaults for BERT-base."""

    temperature: float = Field(
        default=0.05, gt=0, description="temperature tau that divides the cosines"
    )
    dup_rate: float = Field(
        default=0.32,
        ge=0,
        le=1,
        description="maximum share of the sub-words that is repeated (up to two in short "
        "sentences); 0 repeats none",
    )
    queue_size: int = Field(
        default=160,
        ge=0,
        description="keys of earlier batches kept as further negatives (paper: 2.5 times the "
        "batch of 64); 0 for no queue and no momentum encoder",
    )
    momentum: float = Field(
        default=0.995,
        ge=0,
        le=1,
        description="share of weights that the momentum encoder keeps",
    )
    head: Literal["mlp", "none"] = Field(
        default="mlp",
        description="layer between encoder and loss, in training only: linear + tanh, or none",
    )

    def unused(self, data: DataSpec) -> list[str]:
        """Report the momentum of an encoder that only the queue needs."""
        if self.queue_size:
            return []
        return inert(self, "momentum", because="method.queue_size is 0")


class ESimCSE(Method):
    """SimCSE with positives of different length and a queue of further negatives.

    The positive is the sentence with some sub-words repeated, so that equal length is not a cue for
    a positive (section 3.1 of arXiv 2109.04380). The queue holds keys of unmodified sentences,
    computed by a momentum encoder without dropout and by the trained head (section 3.2). In
    evaluation mode nothing is repeated.

    Examples:
        >>> str(ESimCSEConfig().contrast(DataSpec("texts"), 64))
        '63 negatives per anchor, up to 160 from the queue'
    """

    name = "esimcse"
    paper = Paper(
        "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised "
        "Sentence Embedding",
        "2109.04380",
        2021,
    )
    reads = ("texts",)
    loss_changes_with_state = True
    Config = ESimCSEConfig

    options: ESimCSEConfig

    def __init__(self, encoder: SentenceEncoder, config: ESimCSEConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        self.head: nn.Module | None = mlp_head(dim) if config.head == "mlp" else None
        self.momentum: Momentum | None = None
        self.queue: KeyQueue | None = None
        if config.queue_size:
            self.momentum = Momentum(encoder)
            self.queue = KeyQueue(config.queue_size, dim)

    def layout(self, batch: Batch) -> Batch:
        """Return (B, 3, L'): the sentence, its copy with repetitions, and the sentence for the key.

        Without a queue the third view is absent. All views have the id of the sentence.
        """
        # If there are two views, augmentation prepared them separately.
        views = [_ANCHOR, batch.shape[1] - 1, _ANCHOR]
        batch = batch.take_views(views[: 2 if self.queue is None else 3])
        if not (self.training and self.options.dup_rate):
            return batch
        # On the host, so that the lengths of the copies are known without waiting for the device.
        device, batch = batch.text_ids.device, batch.on_host()
        tokenizer = self.encoder.tokenizer
        ids, mask = repeat_tokens(
            batch.input_ids[:, _POSITIVE],
            batch.attention_mask[:, _POSITIVE],
            rate=self.options.dup_rate,
            special_ids=tokenizer.all_special_ids,
            pad_id=tokenizer.pad_token_id,
            most=position_limit(self.encoder.backbone),
        )
        longer = ids.shape[1] - batch.input_ids.shape[2]
        input_ids = F.pad(batch.input_ids, (0, longer), value=tokenizer.pad_token_id)
        attention_mask = F.pad(batch.attention_mask, (0, longer))
        input_ids[:, _POSITIVE], attention_mask[:, _POSITIVE] = ids, mask
        return replace(batch, input_ids=input_ids, attention_mask=attention_mask).to(device)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): keys with the momentum encoder, without gradient."""

        def trained(ids: Tensor, mask: Tensor) -> Tensor:
            return self._headed(self.encoder(ids, mask))

        def keys(ids: Tensor, mask: Tensor) -> Tensor:
            assert self.momentum is not None
            with torch.no_grad(), evaluation_mode(self.momentum.copy):
                return self._headed(self.momentum.copy(ids, mask))

        return embed_with_two(input_ids, attention_mask, views, trained, keys, others=_KEY)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute InfoNCE of (B, V, d), with the keys of earlier batches as further negatives.

        Logs ``contrastive_loss``, ``positive_cosine``, ``accuracy``, ``queue`` (number of keys) and
        ``ln_batch`` (logarithm of the number of candidates).

        Raises:
            ConfigError: the batch has no negatives.
        """
        anchors, ids = embeddings[:, _ANCHOR], batch.text_ids[:, _ANCHOR]
        if self.queue is None:
            keys, key_ids = anchors[:0], ids[:0]
        else:
            keys, key_ids = self.queue.contents()
        terms = info_nce(
            ContrastiveBatch(
                anchors,
                embeddings[:, _POSITIVE],
                temperature=self.options.temperature,
                anchor_ids=ids,
                positive_ids=batch.text_ids[:, _POSITIVE],
                queue=keys,
                queue_ids=key_ids,
            )
        )
        # Not for held-out rows, whose loss is computed without gradient.
        if self.queue is not None and self.training and torch.is_grad_enabled():
            self.queue.push(embeddings[:, _KEY], batch.text_ids[:, _KEY])
        logs = terms.logs() | {
            "queue": float(len(keys)),
            "ln_batch": math.log(len(anchors) + len(keys)),
        }
        return MethodOutput(loss=terms.loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Update the momentum encoder, and add the keys of the step to the queue."""
        if self.momentum is not None and self.queue is not None:
            self.momentum.follow(self.encoder, self.options.momentum)
            self.queue.advance()

    def _headed(self, embeddings: Tensor) -> Tensor:
        return embeddings if self.head is None else self.head(embeddings)


def repeat_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    rate: float,
    special_ids: Sequence[int],
    pad_id: int,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Repeat some tokens of each row, each directly after itself.

    The number of repeated tokens is drawn uniformly from the integers 0 to max(2, int(rate·N)) for
    N ordinary tokens, the tokens without replacement (section 3.1 of arXiv 2109.04380). Special
    tokens are never repeated. The random numbers come from torch's global generator.

    Args:
        input_ids: (R, L) int64, padded on the right; not modified.
        attention_mask: (R, L), 0 at padding.
        rate: maximum share of the tokens that is repeated.
        special_ids: ids that are never repeated.
        pad_id: id of the padding token.
        most: maximum length of a row; None for no limit.

    Returns:
        Ids and mask, both (R, L') with L' of L or more.
    """
    device = input_ids.device
    ordinary = ordinary_tokens(input_ids, attention_mask, special_ids)
    count = ordinary.sum(dim=1)
    # TRAP: float64, as in Python: 0.32 * 25 is 8, but a little less in float32.
    bound = (count.double() * rate).long().clamp_min(2)
    wanted = (torch.rand(len(count), device=device, dtype=torch.float64) * (bound + 1)).long()
    wanted = torch.minimum(wanted, count)
    if most is not None:
        wanted = torch.minimum(wanted, (most - attention_mask.sum(dim=1)).clamp_min(0))
    lots = torch.rand(input_ids.shape, device=device).masked_fill(~ordinary, 2.0)
    chosen = lots.argsort(dim=1).argsort(dim=1) < wanted.unsqueeze(1)

    times = attention_mask.long() + chosen
    lengths = times.sum(dim=1)
    longest = max(input_ids.shape[1], int(lengths.max()))
    mask = torch.arange(longest, device=device) < lengths.unsqueeze(1)
    ids = input_ids.new_full((len(count), longest), pad_id)
    ids[mask] = input_ids.flatten().repeat_interleave(times.flatten())
    return ids, mask.to(attention_mask.dtype)
