"""SentenceEncoder: sentences to vectors, loading and saving."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.device import Device, is_auto, known_device, put_on
from simcse_kit.encoder.encode_options import EncodeKeywords, EncodeOptions
from simcse_kit.encoder.folder.load import load_parts
from simcse_kit.encoder.folder.resolve import DEFAULT_ENCODER, HubKeywords, HubOptions
from simcse_kit.encoder.folder.save import save_encoder
from simcse_kit.encoder.hub.model import HubModel
from simcse_kit.encoder.inputs import checked_texts, path_text, texts_one_by_one
from simcse_kit.encoder.similarity import Side, cosines, given_vectors
from simcse_kit.encoder.stream import CHUNK, stream_vectors, vectors_of_texts
from simcse_kit.errors import ConfigError

__all__ = ["SentenceEncoder"]


class SentenceEncoder(HubModel):
    """Sentences to vectors.

    Load an encoder with :meth:`load`; see :class:`EncoderModel` for the attributes and for training
    and changing the network.

    Examples:
        >>> from simcse_kit import SentenceEncoder
        >>> encoder = SentenceEncoder.load()
        >>> vectors = encoder.encode(["A dog runs.", "A puppy is running.", "Prices rose."])
        >>> vectors.shape
        (3, 256)
        >>> puppy, prices = encoder.similarity("A dog runs.", vectors[1:])[0]
        >>> bool(puppy > 0.8), bool(prices < 0.2)
        (True, True)
    """

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str] = DEFAULT_ENCODER,
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        template: str | None = None,
        trust_remote_code: bool = False,
        device: Device = "auto",
        **hub: Unpack[HubKeywords],
    ) -> SentenceEncoder:
        """Load an encoder.

        Supported are folders of this package (exported ones too) and of sentence-transformers,
        plain Hugging Face models, and princeton-nlp/SimCSE checkpoints (as trained and converted).
        Only safetensors weights are read; pickled weights are refused.

        Args:
            path_or_name: Folder, name of an embedded model, or name on the Hugging Face Hub, with
                ``@REVISION`` if it is not the main branch. The embedded models are ``"small"``, a
                ready English encoder, and ``"mini"``, a raw masked language model to train from.
            pooling: Pooling to use instead of the folder's, one of
                :data:`simcse_kit.encoder.pooling.POOLINGS`, or several joined by ``+``, whose
                vectors are concatenated. A head in the folder is then dropped, unless the pooling
                is ``cls`` or ``pooler``, whose head must be in the checkpoint.
            max_length: Maximum number of tokens per sentence, instead of the folder's.
            template: Template around every sentence, such as ``'"[X]" means [MASK].'``; the vector
                is the state at ``[MASK]``. The pooling is then ``mask``, and a head in the folder
                is dropped.
            trust_remote_code: Whether Python code of the model's repository may run.
            device: Device of the weights: ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, the
                number of a GPU, or a ``torch.device``. ``"auto"`` is a CUDA GPU if there is one,
                then an Apple GPU, then the CPU. Exported encoders run on the CPU.
            revision (str | None): Branch, tag or commit of a model on the Hub.
            token (str | None): Access token of the Hub; by default ``$HF_TOKEN`` or that of
                ``hf auth login``.
            local_files_only (bool): Whether only models of the local cache of the Hub are opened.

        Raises:
            ModelError: The model does not exist, or is damaged, incomplete or not supported.
            ConfigError: The pooling, template, length, revision or device cannot be used, or the
                device does not exist on this machine.

        Examples:
            >>> SentenceEncoder.load().max_length
            256
            >>> SentenceEncoder.load("mini", pooling="max", max_length=32).max_length
            32
        """
        place = known_device(device)
        parts = load_parts(
            path_or_name,
            pooling=pooling,
            max_length=max_length,
            template=template,
            trust_remote_code=trust_remote_code,
            hub=HubOptions(**hub),
        )
        encoder = cls(**parts).eval()
        if encoder.engine is not None and place.type != "cpu":
            if not is_auto(device):
                raise ConfigError(
                    f"{path_or_name} is exported to run on the CPU, not on {str(device)!r}; use "
                    "the device cpu or auto, or load the model that was exported"
                )
            return encoder
        return put_on(encoder, place, device)

    def save(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Save the encoder as a folder that this package, sentence-transformers and AutoModel load.

        A new folder appears complete or not at all. In an existing folder, other files stay; while
        files are replaced it has no ``config.json``, so that the folder of an interrupted save is
        refused on loading.

        Args:
            folder: Destination; created if needed.
            card: Text of README.md; a short description by default.

        Raises:
            ConfigError: The argument is not a path, or another process is saving there.
            ModelError: The folder cannot be written.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> encoder = SentenceEncoder.load("mini")
            >>> with TemporaryDirectory() as folder:
            ...     encoder.save(folder)
            ...     again = SentenceEncoder.load(folder)
            >>> bool((again.encode("A cat sat.") == encoder.encode("A cat sat.")).all())
            True
        """
        save_encoder(self, Path(path_text(folder, "folder")), card)

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["numpy"] = ...,
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["torch"],
        **options: Unpack[EncodeKeywords],
    ) -> Tensor: ...

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        to: Literal["numpy", "torch"] = "numpy",
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[np.float32] | Tensor:
        """Compute the vectors of sentences, in their order.

        Each distinct sentence is computed once; batches are made of sentences of similar length.
        Log lines report how many sentences were truncated, how many tokens are unknown to the
        vocabulary, and which sentences became equal; see
        :class:`~simcse_kit.encoder.token_counts.TokenCounts`.

        Args:
            sentences: One sentence or many.
            to: ``"numpy"`` (float32) or ``"torch"`` (on the device of the encoder).
            batch_size (int | None): Maximum number of sentences per forward pass; by default only
                the token budget counts.
            token_budget (int | None): Maximum number of tokens per forward pass, padding included
                where there is any; by default one that suits the CPU, or the free memory of a GPU.
                If a GPU runs out of memory, the budget is halved and a log line says so.
            normalize (bool | None): Whether vectors are scaled to unit length; by default
                :attr:`normalize`.
            max_length (int | None): Maximum number of tokens per sentence; by default
                :attr:`max_length`.
            precision (str): Number format: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"int8"``. On a
                GPU, bf16 and fp16 use a copy of the transformer in this format, which stays there
                until the weights change. On a CPU, bf16 and int8 apply to the linear maps, and fp16
                is refused. If bf16 is not faster there, a log line says so and fp32 is used. int8
                runs on CPUs only; a log line reports the cosine between its vectors and those in
                fp32. Its ranges come from the sentences of the first call and are kept until the
                weights change, so that the vectors of all calls are comparable.
            progress (bool): Whether a progress bar is shown on a terminal or in a notebook.

        Returns:
            ``(n, embedding_dim)``; ``(embedding_dim,)`` for a single string.

        Raises:
            DataError: An entry is not a string.
            ConfigError: A length, size or budget is not allowed, or the encoder, its device or
                torch does not support the precision.
            ModelError: A sentence does not fit into the memory of the GPU, or numbers inside the
                model are too large for fp16.

        Examples:
            >>> encoder = SentenceEncoder.load("mini")
            >>> encoder.encode("A dog runs.").shape
            (256,)
            >>> vectors = encoder.encode(["A dog.", "Prices rose."], to="torch", normalize=True)
            >>> vectors.norm(dim=1).round(decimals=3).tolist()
            [1.0, 1.0]
        """
        if not isinstance(to, str) or to not in ("numpy", "torch"):
            raise ConfigError(f"encode(to={to!r}); allowed: 'numpy', 'torch'")
        chosen = EncodeOptions(**options).for_model(self)
        texts = checked_texts(sentences)
        vectors = vectors_of_texts(self, texts, chosen, to_host=to == "numpy")
        if isinstance(sentences, str):
            vectors = vectors[0]
        return vectors if to == "torch" else vectors.cpu().numpy()

    def encode_stream(
        self,
        sentences: Iterable[str],
        *,
        chunk: int = CHUNK,
        total: int | None = None,
        **options: Unpack[EncodeKeywords],
    ) -> Iterator[NDArray[np.float32]]:
        """Compute the vectors of any number of sentences in bounded memory.

        One chunk is held at a time, two on a GPU; the next one is read ahead and tokenized
        meanwhile. Each distinct sentence of a chunk is computed once.

        Args:
            sentences: Sentences, read once, in the thread that asks for the vectors.
            chunk: Maximum number of sentences per chunk; very long sentences make smaller chunks.
            total: Number of sentences, if known, for the time left in the progress bar.
            **options: The options of :meth:`encode`, except ``to``.

        Yields:
            ``(rows, embedding_dim)`` float32 of the next sentences, in order.

        Raises:
            DataError: An entry is not a string; raised when the entry is read, one chunk ahead, or
                two on a GPU.
            ConfigError: As for :meth:`encode`; raised before anything is read, unless the
                architecture does not support the precision.

        Examples:
            >>> encoder = SentenceEncoder.load("mini")
            >>> sentences = (f"This is sentence {number}." for number in range(5))
            >>> [vectors.shape for vectors in encoder.encode_stream(sentences, chunk=2)]
            [(2, 256), (2, 256), (1, 256)]
        """
        groups = [(None, texts_one_by_one(sentences))]
        stream = stream_vectors(self, groups, EncodeOptions(**options), chunk=chunk, total=total)
        return (vectors for _, vectors in stream)

    def similarity(self, a: Side, b: Side) -> NDArray[np.float32]:
        """Compute the cosine similarity of every pair, always as a matrix.

        Args:
            a: One sentence, n sentences, or their vectors ``(n, d)`` or ``(d,)``.
            b: One sentence, m sentences, or their vectors ``(m, d)`` or ``(d,)``.

        Returns:
            ``(n, m)`` float32; ``(1, 1)`` for two single sentences. The cosine of a zero vector is
            0.

        Raises:
            DataError: An entry is not a string, or the vectors have different dimensions or hold
                NaN or infinity.

        Examples:
            >>> encoder = SentenceEncoder.load("mini")
            >>> encoder.similarity("A dog runs.", ["A puppy is running.", "Prices rose."]).shape
            (1, 2)
        """
        left, right = given_vectors(a), given_vectors(b)
        if left is None and right is None:
            # One call, which logs sentences of the two sides that get equal tokens.
            texts = checked_texts(a)
            both = self.encode(texts + checked_texts(b), to="torch").cpu()
            return cosines(both[: len(texts)], both[len(texts) :])
        if left is None:
            left = self.encode(checked_texts(a), to="torch").cpu()
        if right is None:
            right = self.encode(checked_texts(b), to="torch").cpu()
        return cosines(left, right)
