"""Models that can be evaluated, by name: our own, sentence-transformers' and servers'."""

from __future__ import annotations

import os
from pathlib import Path

from simcse_kit.encoder.device import Device, is_auto, known_device
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.evaluation.st_models import SentenceTransformersModel

__all__ = ["check_model", "open_encoder"]

_ST, _SERVER = "st:", "openai:"
_DEFAULT_URL = "https://api.openai.com/v1"


def check_model(name: str) -> Path | None:
    """Return the folder of a model of ours, and None for other models.

    Args:
        name: as for :func:`open_encoder`.

    Raises:
        ModelError: the folder does not exist, here or on the Hub.
    """
    return None if name.startswith((_ST, _SERVER)) else resolve_model(name)


def open_encoder(name: str, *, pooling: str | None = None, device: Device = "auto") -> Encoder:
    """Open a model.

    Args:
        name: the name of a model as for :meth:`SentenceEncoder.load`; or ``st:NAME``, a model that
            sentence-transformers runs; or ``openai:NAME``, a model of the server at
            ``$OPENAI_BASE_URL`` (OpenAI's own by default) with the key ``$OPENAI_API_KEY``.
        pooling: pooling that replaces the model's own; only for models of ours.
        device: device of the model, as for :meth:`SentenceEncoder.load`; servers do not use it.

    Raises:
        ConfigError: a pooling is given for another model, the device does not exist on this
            machine, or the address of the server is wrong.
        MissingExtraError: sentence-transformers is not installed.
        ModelError: the model cannot be opened.
    """
    if not name.startswith((_ST, _SERVER)):
        return SentenceEncoder.load(name, pooling=pooling, device=device)
    if pooling is not None:
        raise ConfigError(f"{name} has its own pooling, which cannot be replaced; omit --pooling")
    if name.startswith(_ST):
        place = None if is_auto(device) else str(known_device(device))
        return SentenceTransformersModel(name.removeprefix(_ST), place)
    # Imported here, because most evaluations do not use a server.
    from simcse_kit.evaluation.server import KEY, URL, EmbeddingServer

    url = os.environ.get(URL, _DEFAULT_URL)
    return EmbeddingServer(name.removeprefix(_SERVER), url, key=os.environ.get(KEY))
