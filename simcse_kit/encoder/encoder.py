"""SentenceEncoder: loading and saving of encoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from simcse_kit.encoder.device import Device, is_auto, known_device, put_on
from simcse_kit.encoder.folder.load import load_parts
from simcse_kit.encoder.folder.resolve import DEFAULT_ENCODER, HubKeywords, HubOptions
from simcse_kit.encoder.folder.save import save_encoder
from simcse_kit.encoder.hub.model import HubModel
from simcse_kit.encoder.inputs import path_text
from simcse_kit.encoder.text_encoder import TextEncoder
from simcse_kit.errors import ConfigError

__all__ = ["SentenceEncoder"]


class SentenceEncoder(TextEncoder, HubModel):
    """Sentences to vectors.

    Load an encoder with :meth:`load`; see
    :class:`~simcse_kit.encoder.text_encoder.TextEncoder` for encoding, and
    :class:`~simcse_kit.encoder.model.EncoderModel` for the attributes and for training and changing
    the network.

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
