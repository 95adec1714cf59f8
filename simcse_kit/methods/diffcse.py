"""DiffCSE: vectors that tell what was edited in a sentence (arXiv 2204.10298)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import evaluation_mode
from simcse_kit.errors import ModelError
from simcse_kit.losses.info_nce import info_nce_terms, negatives_per_anchor
from simcse_kit.losses.replaced_token import replaced_token_loss
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, MethodConfig, inert
from simcse_kit.methods.common.heads import mlp_head, relu_layers
from simcse_kit.methods.common.masking import mask_tokens

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind

__all__ = ["DiffCSE", "DiffCSEConfig"]


class DiffCSEConfig(DropoutConfig):
    """Options of DiffCSE; the defaults are those of the paper for BERT-base on STS."""

    temperature: float = Field(default=0.05, gt=0, description="tau, divides the cosines")
    head: Literal["batchnorm", "mlp", "none"] = Field(
        default="batchnorm",
        description="layers between encoder and loss, dropped after training: two with "
        "BatchNorm, SimCSE's linear + tanh, or none",
    )
    rtd_weight: float = Field(
        default=0.005,
        ge=0,
        description="lambda, weight of replaced-token detection; 0 does without",
    )
    masking_ratio: float = Field(
        default=0.3, gt=0, le=1, description="share of the tokens that the generator fills in anew"
    )
    fill: Literal["argmax", "sample"] = Field(
        default="argmax", description="the generator's likeliest token, or one drawn"
    )
    generator: str | None = Field(
        default=None,
        description="masked language model with the encoder's vocabulary, a name or folder (paper: "
        "distilbert-base-uncased); unset takes the encoder's own as it was before training",
    )


class DiffCSE(Method):
    """SimCSE, and a second task: to find the replaced tokens of a sentence, given its vector.

    A frozen generator fills in masked tokens; a discriminator, which starts as a copy of the
    encoder's transformer, says of each token of the edited sentence whether it was replaced. In
    place of the first token it sees the vector of the sentence before the edit. Generator,
    discriminator and head are gone when the encoder is saved.

    In evaluation mode nothing is random, so nothing is edited and the loss is the contrastive one.

    Raises:
        ModelError: the encoder or the named model has no masked-LM head, the tokenizer no mask
            token, the vocabularies differ, or the transformer is not built like BERT.
    """

    name: ClassVar[str] = "diffcse"
    paper: ClassVar[Paper] = Paper(
        title="DiffCSE: Difference-based Contrastive Learning for Sentence Embeddings",
        arxiv="2204.10298",
        year=2022,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("texts",)
    Config: ClassVar[type[MethodConfig]] = DiffCSEConfig

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

    @classmethod
    def negatives_per_anchor(cls, batch_size: int, kind: Kind, negatives: int = 0) -> int:  # noqa: ARG003
        """Positives of the other rows."""
        return negatives_per_anchor(batch_size)

    @classmethod
    def beyond_embeddings(cls, options: MethodConfig) -> str | None:
        """The discriminator takes the whole batch at once, and as much memory as that needs."""
        assert isinstance(options, DiffCSEConfig)
        if options.rtd_weight > 0:
            return (
                f"method.rtd_weight = {options.rtd_weight} runs a second transformer on the whole "
                "batch at once"
            )
        return super().beyond_embeddings(options)

    @classmethod
    def unused(cls, options: MethodConfig, kind: Kind, negatives: int = 0) -> list[str]:  # noqa: ARG003
        """Options of the detection of replaced tokens without its weight."""
        assert isinstance(options, DiffCSEConfig)
        if options.rtd_weight:
            return []
        keys = ("masking_ratio", "fill", "generator")
        return inert(options, *keys, because="method.rtd_weight is 0")

    def layout(self, batch: Batch) -> Batch:
        """(B, 1, L) -> (B, 2, L): a sentence is its own positive under another dropout mask."""
        return self.two_views(batch)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """InfoNCE of the projected (B, 2, d), and the detection of replaced tokens.

        Logs ``contrastive_loss``, ``positive_cosine`` and ``accuracy``; in training also
        ``rtd_loss`` before its weight, and ``replaced``, the share of the tokens that differ.

        Raises:
            ConfigError: a batch without any negative.
        """
        # BatchNorm sees both views together, as the official code has it.
        vectors = embeddings.flatten(0, 1)
        if self.head is not None:
            vectors = self.head(vectors)
        pairs = vectors.view(*batch.shape, -1)
        terms = info_nce_terms(
            pairs[:, 0],
            pairs[:, 1],
            temperature=self.options.temperature,
            anchor_ids=batch.text_ids[:, 0],
            positive_ids=batch.text_ids[:, 1],
        )
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
        """(R, L) ids in which the generator has filled in a share of the tokens, row by row."""
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
            logits = self.generator(input_ids=masked, attention_mask=attention_mask).logits[chosen]
        # A model may have more rows of embeddings than the tokenizer has tokens.
        logits = logits[:, : len(tokenizer)]
        if self.options.fill == "argmax":
            filled = logits.argmax(dim=1)
        else:
            filled = torch.multinomial(logits.float().softmax(dim=1), 1).squeeze(1)
        edited = input_ids.clone()
        edited[chosen] = filled
        return edited


class _Discriminator(nn.Module):
    """A transformer that says of each token whether it was replaced, given a sentence vector.

    Args:
        encoder: its transformer is copied.
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
                f"method diffcse puts the sentence vector among the token embeddings, which a "
                f"{kind} has no place for; use a model built like BERT or set method.rtd_weight "
                "to 0"
            )
        if encoder.embedding_dim != width:
            raise ModelError(
                f"the encoder's vectors have {encoder.embedding_dim} dimensions and its token "
                f"embeddings {width}, so that method diffcse cannot put one in the place of the "
                "other; open it with a pooling without head"
            )
        self.classifier = nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor) -> Tensor:
        """Tokens (R, L) and vectors (R, d) to logits (R, L, 2): original, replaced."""

        def put(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return torch.cat([vectors.to(output.dtype).unsqueeze(1), output[:, 1:]], dim=1)

        # Behind the LayerNorm of the embeddings, as the official code has it; `inputs_embeds`
        # would come before.
        hook = self.backbone.embeddings.register_forward_hook(put)
        try:
            states = self.backbone(input_ids=input_ids, attention_mask=attention_mask)
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
        source = SentenceEncoder.load(name)
        if source.tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
            raise ModelError(
                f"method.generator = {name!r} has another vocabulary than the encoder; use a "
                "masked language model with the same tokenizer, or leave method.generator unset"
            )
    # The encoder's own shares its weights, which are about to change.
    generator = copy.deepcopy(source.masked_lm())
    for weight in generator.parameters():
        weight.requires_grad_(False)
    return generator.train(encoder.training)
