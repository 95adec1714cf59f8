"""The neural network of a sentence encoder: transformer, pooling and head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from simcse_kit.encoder import backbone as hf
from simcse_kit.encoder.batch_plan import run_unpacked
from simcse_kit.encoder.batched_module import BatchedModule
from simcse_kit.encoder.dense import Dense, check_stage
from simcse_kit.encoder.export.base import Engine
from simcse_kit.encoder.folder.adapters import transformer_folder
from simcse_kit.encoder.input_hook import Alter, altered
from simcse_kit.encoder.inputs import checked_texts
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import (
    MULTIPLE,
    Batching,
    Layout,
    UnpackableError,
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


class EncoderModel(BatchedModule):
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
        prompt: Text put in front of every sentence, unless a call gives another one.
        prompts: Further prompts by their names, such as ``query`` and ``document``.
        include_prompt: Whether the tokens of a prompt are pooled.
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
    prompts = TokenizationField[dict[str, str]]()
    include_prompt = TokenizationField[bool]()
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
        self.unpooled()  # refuses a prompt that cannot be left out

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

    def require_weights(self) -> None:
        """Raise a ModelError if the encoder is exported and so has no weights to train."""
        if self.engine is not None:
            self.backbone.refuse()

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
        self,
        sentences: Sequence[str],
        *,
        max_length: int | None = None,
        prompt: str | None = None,
    ) -> tuple[list[list[int]], int]:
        """Check and tokenize sentences, see :meth:`Tokenization.rows`.

        Raises:
            DataError: An entry is not a string.
        """
        return self.tokenization.rows(checked_texts(sentences), max_length, prompt)

    def unpooled(self, prompt: str | None = None) -> int:
        """Return the number of tokens at the start of each row that are not pooled.

        Args:
            prompt: Text in front of the sentences; None for the default one.

        Raises:
            ModelError: The encoder leaves the prompt out and cannot do so.
        """
        prompt = self.prompt if prompt is None else prompt
        if self.include_prompt or not prompt:
            return 0
        fixed_token = {*self.pooling.split("+")} & (FIRST_TOKEN_POOLINGS | {"mask"})
        if self.engine is not None or fixed_token:
            what = self.backbone.summary if self.engine is not None else f"pooling {self.pooling!r}"
            raise ModelError(
                f"this encoder leaves the prompt {prompt!r:.60} out of its vectors "
                f"(include_prompt = false), which {what} does not support; encode without a prompt"
            )
        return self.tokenization.prompt_length(prompt)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        alter: Alter | None = None,
        unpooled: int | None = None,
    ) -> Tensor:
        """Compute sentence vectors ``(n, embedding_dim)``, not normalised.

        Args:
            input_ids: ``(n, L)`` int64, padded on the right.
            attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
            alter: Function that changes the input of the first layer, see
                :data:`simcse_kit.encoder.input_hook.Alter`.
            unpooled: Number from :meth:`unpooled`; None for that of the default prompt.
        """
        unpooled = self.unpooled() if unpooled is None else unpooled
        if self.packs:
            tokens, layout = pack(input_ids, attention_mask, multiple=MULTIPLE)
            try:
                with altered(self.backbone, alter, attention_mask, layout):
                    vectors = self.forward_packed(tokens, layout, unpooled=unpooled)
                    return vectors[: len(input_ids)]
            except UnpackableError as error:
                self.stop_packing(error)
        run = partial(self._pool_padded, unpooled=unpooled)
        pooled = run_unpacked(run, input_ids, attention_mask, alter, self.batching.unpacked)
        return self._after_pooling(pooled)

    def forward_packed(
        self,
        tokens: Tensor,
        layout: Layout,
        blocks: Sequence[Block] | None = None,
        unpooled: int | None = None,
    ) -> Tensor:
        """Compute sentence vectors of a batch without padding.

        Args:
            tokens: ``(T,)`` token ids of all rows, concatenated.
            layout: Positions of the rows in ``tokens``.
            blocks: Layers prepared for inference, instead of the model's own.
            unpooled: As for :meth:`forward`.

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
        unpooled = self.unpooled() if unpooled is None else unpooled
        pooled = pool_packed(
            self.pooling, self._before_pooling(states), layout, self._mask_place, unpooled
        )
        return self._after_pooling(pooled)

    def _pool_padded(
        self, input_ids: Tensor, attention_mask: Tensor, alter: Alter | None, *, unpooled: int
    ) -> Tensor:
        layers = self.pooling in LAYER_POOLINGS
        with altered(self.backbone, alter, attention_mask):
            output = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=layers
            )
        states = output.hidden_states if layers else (output.last_hidden_state,)
        states = self._before_pooling(states)
        return pool(self.pooling, states, attention_mask, self._mask_place, unpooled)

    def _before_pooling(self, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """Convert token states to the type in which they are pooled."""
        return states

    def _after_pooling(self, vectors: Tensor) -> Tensor:
        return vectors if self.head is None else cast(Tensor, self.head(vectors))

    @property
    def _mask_place(self) -> int | None:
        return None if self.template is None else self.template.place
