"""DiffCSE: contrastive learning with replaced-token detection (arXiv 2204.10298)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import evaluation_mode
from simcse_kit.errors import ModelError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.replaced_token import replaced_token_loss
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import mlp_head, relu_layers
from simcse_kit.methods.common.masking import mask_tokens, padded_mask
from simcse_kit.utils.host_copies import reads_are_free

__all__ = ["DiffCSE", "DiffCSEConfig"]


class DiffCSEConfig(DropoutConfig):
    """Options of DiffCSE, with the paper's defaults for BERT-base on STS."""

    temperature: float = Field(
        default=0.05, gt=0, description="temperature tau that divides the cosines"
    )
    head: Literal["batchnorm", "mlp", "none"] = Field(
        default="batchnorm",
        description="layers between encoder and loss, dropped after training: two with "
        "BatchNorm, SimCSE's linear + tanh, or none",
    )
    rtd_weight: float = Field(
        default=0.005,
        ge=0,
        description="lambda, weight of replaced-token detection; 0 leaves it out",
    )
    masking_ratio: float = Field(
        default=0.3, gt=0, le=1, description="share of the tokens that the generator replaces"
    )
    fill: Literal["argmax", "sample"] = Field(
        default="argmax", description="the generator's most likely token, or a sampled one"
    )
    generator: str | None = Field(
        default=None,
        description="masked language model with the encoder's vocabulary, a name or folder (paper: "
        "distilbert-base-uncased); unset takes the encoder's own as it was before training",
    )

    def chunking_obstacle(self) -> str | None:
        """Refuse chunks with the discriminator, which needs the whole batch at once."""
        if not self.rtd_weight:
            return None
        return (
            f"method.rtd_weight = {self.rtd_weight} runs a second transformer on the whole batch "
            "at once"
        )

    def unused(self, data: DataSpec) -> list[str]:
        """Report options of replaced-token detection if its weight is 0."""
        if self.rtd_weight:
            return []
        keys = ("masking_ratio", "fill", "generator")
        return inert(self, *keys, because="method.rtd_weight is 0")


class DiffCSE(Method):
    """SimCSE with a second task: detect replaced tokens of a sentence, given its embedding.

    A frozen generator fills in masked tokens. A discriminator, which starts as a copy of the
    encoder's transformer, predicts for each token of the edited sentence whether it was replaced.
    Instead of the first token it reads the embedding of the original sentence (section 3 of
    arXiv 2204.10298; ``cls_input`` in
    https://github.com/voidism/DiffCSE/blob/5f069da6b80edc04d2463e972feed878a2ba3ee8/diffcse/models.py).
    Generator, discriminator and head are dropped when the encoder is saved. In evaluation mode
    nothing is edited, and the loss is the contrastive one.

    Raises:
        ModelError: the encoder or the generator has no MLM head, the tokenizer has no mask token,
            the vocabularies differ, or the transformer is not built like BERT.

    Examples:
        >>> DiffCSEConfig(rtd_weight=0).chunking_obstacle() is None
        True
    """

    name = "diffcse"
    paper = Paper(
        "DiffCSE: Difference-based Contrastive Learning for Sentence Embeddings", "2204.10298", 2022
    )
    reads = ("texts",)
    Config = DiffCSEConfig

    options: DiffCSEConfig

    def __init__(self, encoder: SentenceEncoder, config: DiffCSEConfig):
        super().__init__(encoder, config)
        dim = encoder.embedding_dim
        self.head: nn.Module | None = None
        if config.head == "mlp":
            self.head = mlp_head(dim)
        elif config.head == "batchnorm":
            self.head = relu_layers([dim, 2 * dim, dim], batch_norm=True, last_norm=True)
        self.generator: nn.Module | None = None
        self.discriminator: _Discriminator | None = None
        if config.rtd_weight:
            self.discriminator = _Discriminator(encoder)
            self.generator = _frozen_generator(encoder, config.generator)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute InfoNCE of the projected (B, 2, d), plus weighted replaced-token detection.

        Logs ``contrastive_loss``, ``positive_cosine`` and ``accuracy``; in training also the
        unweighted ``rtd_loss`` and ``replaced``, the share of the tokens that differ.

        Raises:
            ConfigError: the batch has no negatives.
        """
        # BatchNorm over both views together, as the authors do (ProjectionMLP, lines 35-50 of the
        # file linked above).
        vectors = embeddings.flatten(0, 1)
        if self.head is not None:
            vectors = self.head(vectors)
        pairs = vectors.view(*batch.shape, -1)
        terms = info_nce(batch.to_contrastive(pairs, self.options.temperature))
        loss = terms.loss
        logs = terms.logs()
        if self.discriminator is not None and self.training:
            ids, mask = batch.rows()
            edited = self._edit(ids, mask)
            replaced = edited != ids
            rtd_loss = replaced_token_loss(
                self.discriminator(edited, mask, vectors), replaced, mask
            )
            logs["rtd_loss"] = rtd_loss.detach()
            logs["replaced"] = replaced.sum() / mask.sum()
            loss = loss + self.options.rtd_weight * rtd_loss
        return MethodOutput(loss=loss, logs=logs)

    @torch.no_grad()
    def _edit(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (R, L) ids in which the generator has replaced a share of the tokens."""
        assert self.generator is not None
        tokenizer = self.encoder.tokenizer
        masked, chosen = mask_tokens(
            input_ids,
            attention_mask,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=len(tokenizer),
            probability=self.options.masking_ratio,
        )
        with evaluation_mode(self.generator):
            logits = self.generator(
                input_ids=masked, attention_mask=padded_mask(self.generator, attention_mask)
            ).logits
        # Else the host would wait for the number of chosen tokens, so all tokens are filled in.
        few = reads_are_free(logits.device)
        logits = logits[chosen] if few else logits.flatten(0, 1)
        # A model may have more embeddings than the tokenizer has tokens.
        logits = logits[:, : len(tokenizer)]
        if self.options.fill == "argmax":
            filled = logits.argmax(dim=1)
        else:
            filled = torch.multinomial(logits.float().softmax(dim=1), 1).squeeze(1)
        if not few:
            return torch.where(chosen, filled.view_as(input_ids), input_ids)
        edited = input_ids.clone()
        edited[chosen] = filled
        return edited


class _Discriminator(nn.Module):
    """A transformer that predicts which tokens were replaced, given the sentence embedding.

    Args:
        encoder: the encoder whose transformer is copied.
    """

    def __init__(self, encoder: SentenceEncoder):
        super().__init__()
        encoder.require_padding(
            "the discriminator of method diffcse",
            "use another model or set method.rtd_weight to 0",
        )
        self.backbone = copy.deepcopy(encoder.backbone)
        for weight in self.backbone.parameters():
            weight.requires_grad_(True)
        width = int(self.backbone.config.hidden_size)
        inner = int(getattr(self.backbone.config, "embedding_size", width))
        if not isinstance(getattr(self.backbone, "embeddings", None), nn.Module) or inner != width:
            kind = self.backbone.config.model_type
            raise ModelError(
                "method diffcse replaces a token embedding by the sentence vector, which model "
                f"type {kind!r} does not allow; use a model built like BERT or set "
                "method.rtd_weight to 0"
            )
        if encoder.embedding_dim != width:
            raise ModelError(
                f"the encoder's vectors have {encoder.embedding_dim} dimensions and its token "
                f"embeddings {width}, so method diffcse cannot replace one by the other; open it "
                "with a pooling without head"
            )
        self.classifier = nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor) -> Tensor:
        """Map tokens (R, L) and vectors (R, d) to logits (R, L, 2): original, replaced."""

        def put(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return torch.cat([vectors.to(output.dtype).unsqueeze(1), output[:, 1:]], dim=1)

        # TRAP: after the LayerNorm of the embeddings, as the authors do; `inputs_embeds` would
        # come before it.
        hook = self.backbone.embeddings.register_forward_hook(put)
        try:
            states = self.backbone(
                input_ids=input_ids, attention_mask=padded_mask(self.backbone, attention_mask)
            )
        finally:
            hook.remove()
        logits: Tensor = self.classifier(states.last_hidden_state)
        return logits


def _frozen_generator(encoder: SentenceEncoder, name: str | None) -> nn.Module:
    if encoder.tokenizer.mask_token_id is None:
        raise ModelError(
            "method diffcse needs a mask token and the tokenizer has none; use a masked language "
            "model or set method.rtd_weight to 0"
        )
    source = encoder
    if name is not None:
        source = SentenceEncoder.load(name, device="cpu")
        if source.tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
            raise ModelError(
                f"method.generator = {name!r} has another vocabulary than the encoder; use a "
                "masked language model with the same tokenizer, or leave method.generator unset"
            )
    # A copy, since the encoder's own MLM shares the weights in training.
    generator = copy.deepcopy(source.masked_lm())
    for weight in generator.parameters():
        weight.requires_grad_(False)
    return generator.train(encoder.training)
