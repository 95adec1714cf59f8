"""SentenceEncoder: a Hugging Face transformer, a pooling, and what comes after it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder import backbone as hf
from simcse_kit.encoder.dense import Dense, check_stage
from simcse_kit.encoder.export.base import Engine
from simcse_kit.encoder.folder.adapters import transformer_folder
from simcse_kit.encoder.folder.load import DEFAULT_POOLING, load_parts
from simcse_kit.encoder.forward_batches import find_batching_once, pooled_batch, require_padding
from simcse_kit.encoder.inference import compute_vectors, token_ids
from simcse_kit.encoder.input_hook import Alter
from simcse_kit.encoder.inputs import (
    check_sizes,
    check_switches,
    checked_texts,
    path_text,
    texts_one_by_one,
    whole_number,
)
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.encoder.packing.row_groups import Batching
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.pooling import (
    FIRST_TOKEN_POOLINGS,
    HEAD_POOLINGS,
    LAYER_POOLINGS,
    check_pooling,
    pool_packed,
)
from simcse_kit.encoder.quantization.layer_cache import Precision, check_precision
from simcse_kit.encoder.similarity import Side, similarity
from simcse_kit.encoder.stream import CHUNK, stream_vectors
from simcse_kit.encoder.template import Template
from simcse_kit.encoder.vectors import known_device, put_on
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["SentenceEncoder"]


class SentenceEncoder(nn.Module):
    """Text to vectors.

    Open one with :meth:`load`; the attributes are for reading.

    Attributes:
        backbone: the transformer, without its pooler.
        tokenizer: its tokenizer.
        pooling: one of :data:`simcse_kit.encoder.pooling.POOLINGS`.
        head: Dense stages after pooling, or None.
        normalize: whether :meth:`encode` gives unit vectors unless told otherwise.
        max_length: tokens of a sentence, special tokens included; what is longer is cut.
        source: the folder it was opened from.
        template: what sentences are put into, for pooling ``mask``; else None.
        known_batching: how batches run, once that has been tried; see :attr:`batching`.
        engine: what computes in place of the transformer, for an exported encoder; else None. The
            backbone then has no weights, and ``forward`` refuses.
    """

    def __init__(
        self,
        backbone: Any,
        tokenizer: Any,
        *,
        pooling: str = DEFAULT_POOLING,
        head: nn.Sequential | None = None,
        normalize: bool = False,
        max_length: int | None = None,
        lowercase: bool = False,
        prompt: str = "",
        template: str = "",
        source: Path | None = None,
        engine: Engine | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = check_pooling(pooling)
        self.head = head
        self.normalize = normalize
        self.lowercase = lowercase
        self.prompt = prompt
        self.template = Template.of(template, tokenizer) if template else None
        self.source = source
        self.engine = engine
        self.known_batching = None if engine is None else Batching(packed=False)
        self.max_length = self.checked_length(max_length)
        if pooling in HEAD_POOLINGS and head is None:
            raise ModelError(f"pooling {pooling!r} needs a head, and there is none")
        if (pooling == "mask") != bool(template):
            raise ConfigError(
                f"pooling is {pooling!r} and the template {template!r}; pooling 'mask' needs a "
                "template, and no other pooling takes one"
            )

    # ---------------------------------------------------------------- opening and saving

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        template: str | None = None,
        trust_remote_code: bool = False,
        device: str | torch.device | None = None,
    ) -> SentenceEncoder:
        """Open an encoder.

        Opens folders of this kit (exported ones too) and of sentence-transformers, plain Hugging
        Face models, and princeton-nlp/SimCSE checkpoints (as trained and converted). Only
        safetensors weights are read; pickled weights are refused.

        Args:
            path_or_name: a folder, ``"mini"`` (embedded), or a name on the Hugging Face Hub.
            pooling: in place of the folder's own recipe. A kept head is then dropped, unless the
                pooling is ``cls`` or ``pooler``, whose head must be in the checkpoint.
            max_length: in place of the folder's own.
            template: put every sentence into this, such as ``'"[X]" means [MASK].'``, and take the
                state at ``[MASK]``; a kept head is dropped. The pooling is then ``mask``.
            trust_remote_code: allow Python code of the model's repository to run.
            device: where to put it; CPU unless given.

        Raises:
            ModelError: there is no such model, or it is damaged, incomplete or not supported.
            ConfigError: the pooling, the template, the length or the device is none that can be
                used.
        """
        place = known_device(device)
        parts = load_parts(
            path_or_name,
            pooling=pooling,
            max_length=max_length,
            template=template,
            trust_remote_code=trust_remote_code,
        )
        encoder = cls(**parts).eval()
        if encoder.engine is not None and place.type != "cpu":
            raise ConfigError(f"{path_or_name} is exported to run on the CPU, not on {device!r}")
        return put_on(encoder, place)

    def save(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Write the encoder as a folder that this kit, sentence-transformers and AutoModel open.

        A new folder appears whole or not at all. In an existing folder other files stay; while
        files are exchanged it has no ``config.json``, so that an interrupted save is refused on
        loading and not misread.

        Args:
            folder: where to; made if needed.
            card: text of README.md; a short description if not given.

        Raises:
            ConfigError: the folder is no path.
            ModelError: the folder cannot be written.
        """
        from simcse_kit.encoder.folder.save import save_encoder

        save_encoder(self, Path(path_text(folder, "folder")), card)

    # ---------------------------------------------------------------- properties

    @property
    def embedding_dim(self) -> int:
        """Dimensions of the vectors."""
        if self.engine is not None:
            return int(self.backbone.dim)
        if self.head is not None:
            return cast(Dense, self.head[-1]).out_features
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device("cpu") if self.engine is not None else next(self.parameters()).device

    def require_weights(self) -> None:
        """Make sure that there is a transformer to train or to change.

        Raises:
            ModelError: the encoder is exported; the message names the model it was made from.
        """
        if self.engine is not None:
            self.backbone.refuse()

    def dropouts(self) -> dict[str, float]:
        """Every dropout probability of the transformer, by the place where it acts."""
        return hf.dropout_probabilities(self.backbone)

    def set_dropout(self, probability: float) -> None:
        """Set every dropout probability of the transformer.

        Raises:
            ConfigError: the probability is not in [0, 1).
        """
        if not isinstance(probability, int | float | np.floating) or not 0 <= probability < 1:
            raise ConfigError(f"dropout is {probability!r}; allowed: 0 <= p < 1")
        hf.set_dropout(self.backbone, probability)

    def set_head(self, dense: Dense) -> None:
        """Keep ``dense`` after pooling, in training and afterwards; ``cls_before_pooler`` becomes
        ``cls``."""
        self.head = nn.Sequential(dense)
        if self.pooling == "cls_before_pooler":
            self.pooling = "cls"

    def add_stage(self, dense: Dense) -> None:
        """Put ``dense`` behind all there is after pooling, before unit length.

        Raises:
            ModelError: it takes another width than :attr:`embedding_dim`, or the vectors are
                truncated.
        """
        check_stage(dense, self.head, self.embedding_dim)
        if self.head is None:
            self.set_head(dense)
        else:
            self.head = nn.Sequential(*self.head, dense)

    def set_template(self, text: str) -> None:
        """Put every sentence into a template from now on; the pooling becomes ``mask``.

        Args:
            text: with ``[X]`` where the sentence goes and ``[MASK]`` where the vector is read.

        Raises:
            ConfigError: it is no template.
            ModelError: the tokenizer has no mask token, or the encoder keeps a head, which was
                trained for another pooling.
        """
        if self.head is not None:
            raise ModelError(
                f"the encoder keeps a head that was trained for pooling {self.pooling!r}, so that "
                "it takes no template; open it with pooling 'cls_before_pooler', which drops it"
            )
        self.template = Template.of(text, self.tokenizer)
        self.pooling = "mask"

    def masked_lm(self) -> nn.Module:
        """The checkpoint's masked-LM model on this very transformer (weights are shared).

        Returns:
            A module; ``module(input_ids=, attention_mask=).logits`` is ``(n, L, vocabulary)``.

        Raises:
            ModelError: the checkpoint has no masked-LM head, or its states depend on the padding.
        """
        require_padding(self, "masked language modelling")
        if self.source is None:
            raise ModelError("this encoder was not opened from a folder, so it has no MLM head")
        return hf.load_masked_lm(transformer_folder(self.source), self.backbone)

    # ---------------------------------------------------------------- computing

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, *, alter: Alter | None = None
    ) -> Tensor:
        """Token ids to vectors, not normalised.

        Args:
            input_ids: ``(n, L)`` int64, padded on the right.
            attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
            alter: changes what the first layer gets, see
                :data:`simcse_kit.encoder.input_hook.Alter`.

        Returns:
            ``(n, embedding_dim)``.
        """
        return pooled_batch(self, input_ids, attention_mask, alter)

    @property
    def batching(self) -> Batching:
        """How batches run: packed, padded, or in rows of equal length; tried at the first use."""
        return self.known_batching or find_batching_once(self)

    @property
    def packs(self) -> bool:
        """Whether batches run without their padding; some architectures cannot."""
        # Recomputing activations, in training only, is the model's own affair, in its own code.
        if self.backbone.training and any(
            getattr(part, "gradient_checkpointing", False) for part in self.backbone.modules()
        ):
            return False
        return self.batching.packed

    def forward_packed(
        self, tokens: Tensor, layout: Layout, blocks: Sequence[Block] | None = None
    ) -> Tensor:
        """:meth:`forward` of a batch whose padding is out already.

        Args:
            tokens: ``(T,)`` ids of all rows, end to end.
            layout: where the rows are.
            blocks: layers prepared for inference, in place of those of the model.

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
        )
        return self._after_pooling(pool_packed(self.pooling, states, layout, self._place))

    def tokenize(
        self, sentences: Sequence[str], *, max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Sentences to token ids, special tokens included.

        Returns:
            The ids of each sentence, and how many sentences were cut to ``max_length``.

        Raises:
            DataError: as for :meth:`encode`.
            ConfigError: a length that is not allowed.
        """
        length = self.max_length if max_length is None else self.checked_length(max_length)
        texts = [self.prompt + text for text in checked_texts(sentences)]
        if self.lowercase:
            texts = [text.lower() for text in texts]
        if self.template is not None:
            return self.template.rows(self.tokenizer, texts, length)
        return token_ids(self.tokenizer, texts, length)

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int | None = ...,
        token_budget: int | None = ...,
        normalize: bool | None = ...,
        to: Literal["numpy"] = ...,
        max_length: int | None = ...,
        precision: Precision = ...,
        progress: bool = ...,
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int | None = ...,
        token_budget: int | None = ...,
        normalize: bool | None = ...,
        to: Literal["torch"],
        max_length: int | None = ...,
        precision: Precision = ...,
        progress: bool = ...,
    ) -> Tensor: ...

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int | None = None,
        token_budget: int | None = None,
        normalize: bool | None = None,
        to: Literal["numpy", "torch"] = "numpy",
        max_length: int | None = None,
        precision: Precision = "fp32",
        progress: bool = False,
    ) -> NDArray[np.float32] | Tensor:
        """Sentences to vectors, in the given order.

        Each distinct sentence is computed once; batches are made of sentences of like length. Log
        lines say how many sentences were longer than ``max_length`` and so were cut, how many
        tokens the vocabulary does not have, and which sentences became equal; see
        :class:`~simcse_kit.encoder.token_counts.TokenCounts`.

        Args:
            sentences: one sentence or many.
            batch_size: most sentences in one pass; by default only the token budget counts.
            token_budget: most tokens in one pass, padding included.
            normalize: unit vectors; by default what the recipe says.
            to: ``"numpy"`` (float32) or ``"torch"`` (on the encoder's device).
            max_length: tokens of a sentence, in place of the encoder's own.
            precision: ``"bf16"`` or ``"int8"`` computes the linear maps in that. Where bfloat16 is
                not faster, a log line says so and float32 is taken. int8 is for CPUs; a log line
                tells how far its vectors are from those in float32. Its ranges come from the
                sentences of the first call and are kept until the weights change, so that the
                vectors of all calls can be compared.
            progress: a bar, on a terminal or in a notebook.

        Returns:
            ``(n, embedding_dim)``; ``(embedding_dim,)`` for a single string.

        Raises:
            DataError: an entry is not a string.
            ConfigError: a length, size or budget that is not allowed, or a precision that this
                encoder, this CPU or this torch does not serve.
        """
        if not isinstance(to, str) or to not in ("numpy", "torch"):
            raise ConfigError(f"encode(to={to!r}); allowed: 'numpy', 'torch'")
        check_sizes(batch_size=batch_size, token_budget=token_budget)
        check_switches(normalize=normalize, progress=progress)
        check_precision(self, precision)
        texts = checked_texts(sentences)
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        vectors = compute_vectors(
            self,
            list(distinct),
            batch_size=batch_size,
            token_budget=token_budget,
            max_length=max_length,
            progress=progress,
            precision=precision,
        )
        places = [distinct[text] for text in texts]
        result = vectors[torch.tensor(places, dtype=torch.int64, device=vectors.device)]
        if self.normalize if normalize is None else normalize:
            result = unit_length(result, dim=1)
        if isinstance(sentences, str):
            result = result[0]
        return result if to == "torch" else result.cpu().numpy()

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        chunk: int = CHUNK,
        batch_size: int | None = None,
        token_budget: int | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        precision: Precision = "fp32",
        progress: bool = False,
        total: int | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """:meth:`encode` for as many sentences as there are, in bounded memory.

        One chunk is held at a time and one is read ahead, which is tokenized meanwhile. Each
        distinct sentence of a chunk is computed once.

        Args:
            sentences: read once, in the thread that asks for the vectors.
            chunk: most sentences of a chunk; very long sentences make smaller chunks.
            batch_size: as for :meth:`encode`.
            token_budget: as for :meth:`encode`.
            normalize: as for :meth:`encode`.
            max_length: as for :meth:`encode`.
            precision: as for :meth:`encode`.
            progress: as for :meth:`encode`.
            total: number of sentences, if known, for the time left in the bar.

        Yields:
            ``(rows, embedding_dim)`` float32; laid end to end, row i belongs to sentence i.

        Raises:
            DataError: an entry is not a string; raised when it is read, a chunk ahead.
            ConfigError: as for :meth:`encode`; before anything is read, but for an architecture
                that int8 does not serve.
        """
        return stream_vectors(
            self,
            [texts_one_by_one(sentences)],
            chunk=chunk,
            batch_size=batch_size,
            token_budget=token_budget,
            normalize=normalize,
            max_length=max_length,
            precision=precision,
            progress=progress,
            total=total,
        )

    def similarity(self, a: Side, b: Side) -> NDArray[np.float32]:
        """Cosine of every pair, always as a matrix.

        Args:
            a: one sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``.
            b: one sentence, m sentences, or their vectors ``(m, d)`` or ``(d,)``.

        Returns:
            ``(n, m)`` float32; ``(1, 1)`` for two single sentences. A zero vector has cosine 0.

        Raises:
            DataError: an entry is not a string, or the vectors of the sides do not match or hold
                NaN or infinity.
        """
        return similarity(self, a, b)

    # ---------------------------------------------------------------- inside

    @property
    def _place(self) -> int | None:
        return None if self.template is None else self.template.place

    def _after_pooling(self, vectors: Tensor) -> Tensor:
        return vectors if self.head is None else cast(Tensor, self.head(vectors))

    def checked_length(self, wanted: int | None) -> int:
        """The length asked for, or the default, held against what the model has positions for."""
        limit = hf.position_limit(self.backbone) if self.engine is None else self.backbone.positions
        if wanted is not None:
            number = whole_number(wanted)
            return hf.check_length(wanted if number is None else number, limit)
        # Tokenizers without a limit of their own report an astronomic number.
        own = min(int(self.tokenizer.model_max_length), 10**6)
        return own if limit is None else min(own, limit)
