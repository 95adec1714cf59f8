"""The neural network of a sentence encoder: transformer, pooling and head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from simcse_kit.encoder import backbone as hf
from simcse_kit.encoder.batch_plan import run_unpacked
from simcse_kit.encoder.dense import Dense, check_stage
from simcse_kit.encoder.export.base import Engine
from simcse_kit.encoder.folder.adapters import transformer_folder
from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.input_hook import Alter, altered
from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import (
    MULTIPLE,
    Batching,
    Layout,
    UnpackableError,
    Unpacked,
    pack,
)
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.pooling import (
    FIRST_TOKEN_POOLINGS,
    HEAD_POOLINGS,
    LAYER_POOLINGS,
    check_pooling,
    pool,
    pool_packed,
    pooled_width,
)
from simcse_kit.encoder.tokenization import Template, Tokenization, TokenizationField
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["EncoderModel"]

logger = logging.getLogger(__name__)


class EncoderModel(nn.Module):
    """Token ids to sentence vectors.

    Args:
        backbone: Transformer without its pooler.
        tokenization: Conversion of sentences to token ids.
        pooling: Pooling, see :func:`simcse_kit.encoder.pooling.check_pooling`.
        head: Dense stages after pooling.
        normalize: Whether sentence vectors are scaled to unit length by default. ``forward`` does
            not normalise.
        source: Folder that the encoder was loaded from.
        engine: Runtime of an exported encoder, whose backbone has no weights.

    Attributes:
        tokenizer: Hugging Face tokenizer.
        max_length: Maximum number of tokens per sentence, special tokens included.
        prompt: Text put in front of every sentence.
        lowercase: Whether sentences are lower-cased.
        template: Template around every sentence, for pooling ``mask``; else None.
        known_batching: How batches run, after the first use of :attr:`batching`.

    Raises:
        ConfigError: The pooling is unknown, or pooling and template do not fit together.
        ModelError: The pooling needs a head and none is given.
    """

    tokenizer = TokenizationField[Any]()
    max_length = TokenizationField[int]()
    prompt = TokenizationField[str]()
    lowercase = TokenizationField[bool]()
    template = TokenizationField[Template | None]()
    compiled = False  # whether what follows attention is compiled, for training on GPUs

    def __init__(
        self,
        backbone: Any,
        tokenization: Tokenization,
        *,
        pooling: str = "mean",
        head: nn.Sequential | None = None,
        normalize: bool = False,
        source: Path | None = None,
        engine: Engine | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.tokenization = tokenization
        self.pooling = check_pooling(pooling)
        self.head = head
        self.normalize = normalize
        self.source = source
        self.engine = engine
        self.known_batching = None if engine is None else Batching(packed=False)
        if pooling in HEAD_POOLINGS and head is None:
            raise ModelError(f"pooling {pooling!r} needs a head, and none is given")
        template = tokenization.template
        if (pooling == "mask") != (template is not None):
            raise ConfigError(
                f"pooling is {pooling!r} and the template "
                f"{'' if template is None else template.text!r}; pooling 'mask' needs a template, "
                "and no other pooling takes one"
            )

    # ---------------------------------------------------------------- properties and changes

    @property
    def embedding_dim(self) -> int:
        """Number of dimensions of the sentence vectors."""
        if self.engine is not None:
            return int(self.backbone.dim)
        if self.head is not None:
            return cast(Dense, self.head[-1]).out_features
        return pooled_width(self.pooling, int(self.backbone.config.hidden_size))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device("cpu") if self.engine is not None else next(self.parameters()).device

    @property
    def batching(self) -> Batching:
        """How batches run: packed, padded, or in rows of equal length; tried at first use."""
        if self.known_batching is not None:
            return self.known_batching
        from simcse_kit.encoder.packing.probe import find_batching

        # The probe changes the attention of the model temporarily, and threads may share the model.
        with PREPARING:
            if self.known_batching is None:
                self.known_batching = find_batching(self.backbone, self.tokenizer.pad_token_id)
            return self.known_batching

    @property
    def packs(self) -> bool:
        """Whether batches run without padding, which some architectures do not allow."""
        # Only transformers' own code recomputes activations, and only in training.
        if self.backbone.training and any(
            getattr(part, "gradient_checkpointing", False) for part in self.backbone.modules()
        ):
            return False
        return self.batching.packed

    def stop_packing(self, reason: UnpackableError) -> None:
        """Run all further batches unpacked."""
        kind = self.backbone.config.model_type
        logger.info("%s %s: batches are padded, which is slower", kind, reason)
        self.known_batching = replace(self.batching, packed=False)

    def require_weights(self) -> None:
        """Raise a ModelError if the encoder is exported and so has no weights to train."""
        if self.engine is not None:
            self.backbone.refuse()

    def require_padding(self, what: str, remedy: str = "use another model") -> None:
        """Refuse a model that cannot run padded batches.

        Args:
            what: Feature that needs padded batches, as the subject of a sentence.
            remedy: Advice for the error message.

        Raises:
            ModelError: The token states depend on the padding.
        """
        if self.batching.unpacked is not Unpacked.PADDED:
            raise ModelError(
                f"{what} runs padded batches, and the states of a "
                f"{self.backbone.config.model_type} depend on the padding; {remedy}"
            )

    def dropouts(self) -> dict[str, float]:
        """Return every dropout probability of the transformer by its name."""
        return hf.dropout_probabilities(self.backbone)

    def set_dropout(self, probability: float) -> None:
        """Set every dropout probability of the transformer, in [0, 1)."""
        hf.set_dropout(self.backbone, probability)

    def set_head(self, dense: Dense) -> None:
        """Make ``dense`` the head; the pooling ``cls_before_pooler`` becomes ``cls``."""
        self.head = nn.Sequential(dense.to(self.device))
        if self.pooling == "cls_before_pooler":
            self.pooling = "cls"

    def add_stage(self, dense: Dense) -> None:
        """Append a Dense stage to the head.

        Raises:
            ModelError: The input width of the stage is not :attr:`embedding_dim`, or the vectors
                are truncated.
        """
        check_stage(dense, self.head, self.embedding_dim)
        if self.head is None:
            self.set_head(dense)
        else:
            self.head = nn.Sequential(*self.head, dense.to(self.device))

    def set_template(self, text: str) -> None:
        """Put every sentence into a template from now on; the pooling becomes ``mask``.

        Args:
            text: Template with ``[X]`` for the sentence and ``[MASK]`` for the token whose state
                becomes the vector.

        Raises:
            ConfigError: The text is not a template.
            ModelError: The tokenizer has no mask token, or the encoder keeps a head that was
                trained for another pooling.
        """
        if self.head is not None:
            raise ModelError(
                f"the encoder keeps a head that was trained for pooling {self.pooling!r}, so it "
                "cannot take a template; load it with pooling 'cls_before_pooler', which drops "
                "the head"
            )
        self.template = Template.of(text, self.tokenizer)
        self.pooling = "mask"

    def masked_lm(self) -> nn.Module:
        """Open the masked language model of the checkpoint on this transformer; weights are shared.

        Returns:
            A module; ``module(input_ids=, attention_mask=).logits`` is ``(n, L, vocabulary)``.

        Raises:
            ModelError: The checkpoint has no masked-LM head, or the token states depend on the
                padding.
        """
        self.require_padding("masked language modelling")
        if self.source is None:
            raise ModelError("this encoder was not loaded from a folder, so it has no MLM head")
        return hf.load_masked_lm(transformer_folder(self.source), self.backbone).to(self.device)

    # ---------------------------------------------------------------- computation

    def tokenize(
        self, sentences: Sequence[str], *, max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Check and tokenize sentences, see :meth:`Tokenization.rows`.

        Raises:
            DataError: An entry is not a string.
        """
        return self.tokenization.rows(checked_texts(sentences), max_length)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, *, alter: Alter | None = None
    ) -> Tensor:
        """Compute sentence vectors ``(n, embedding_dim)``, not normalised.

        Args:
            input_ids: ``(n, L)`` int64, padded on the right.
            attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
            alter: Function that changes the input of the first layer, see
                :data:`simcse_kit.encoder.input_hook.Alter`.
        """
        if self.packs:
            tokens, layout = pack(input_ids, attention_mask, multiple=MULTIPLE)
            try:
                with altered(self.backbone, alter, attention_mask, layout):
                    return self.forward_packed(tokens, layout)[: len(input_ids)]
            except UnpackableError as error:
                self.stop_packing(error)
        unpacked = self.batching.unpacked
        pooled = run_unpacked(self._pool_padded, input_ids, attention_mask, alter, unpacked)
        return self._after_pooling(pooled)

    def forward_packed(
        self, tokens: Tensor, layout: Layout, blocks: Sequence[Block] | None = None
    ) -> Tensor:
        """Compute sentence vectors of a batch without padding.

        Args:
            tokens: ``(T,)`` token ids of all rows, concatenated.
            layout: Positions of the rows in ``tokens``.
            blocks: Layers prepared for inference, instead of the model's own.

        Returns:
            ``(R, embedding_dim)``, in the order of the batch.
        """
        states = packed_states(
            self.backbone,
            tokens,
            layout,
            all_layers=self.pooling in LAYER_POOLINGS,
            first_only=self.pooling in FIRST_TOKEN_POOLINGS,
            blocks=blocks,
            compiled=self.compiled,
        )
        pooled = pool_packed(self.pooling, self._before_pooling(states), layout, self._mask_place)
        return self._after_pooling(pooled)

    def _pool_padded(
        self, input_ids: Tensor, attention_mask: Tensor, alter: Alter | None
    ) -> Tensor:
        layers = self.pooling in LAYER_POOLINGS
        with altered(self.backbone, alter, attention_mask):
            output = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=layers
            )
        states = output.hidden_states if layers else (output.last_hidden_state,)
        return pool(self.pooling, self._before_pooling(states), attention_mask, self._mask_place)

    def _before_pooling(self, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """Convert token states to the type in which they are pooled."""
        return states

    def _after_pooling(self, vectors: Tensor) -> Tensor:
        return vectors if self.head is None else cast(Tensor, self.head(vectors))

    @property
    def _mask_place(self) -> int | None:
        return None if self.template is None else self.template.place
