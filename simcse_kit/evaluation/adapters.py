"""Encoders that are not ours: sentence-transformers models, and servers of embeddings."""

from __future__ import annotations

import os

from simcse_kit.evaluation.embed import Encoder
from simcse_kit.evaluation.st_models import SentenceTransformersModel

__all__ = ["is_external", "open_external"]

_ST, _SERVER = "st:", "openai:"
_DEFAULT_URL = "https://api.openai.com/v1"


def is_external(name: str) -> bool:
    """Whether a model's name stands for an encoder that is not ours: ``st:…`` or ``openai:…``."""
    return name.startswith((_ST, _SERVER))


def open_external(name: str) -> Encoder:
    """Open ``st:NAME``, a sentence-transformers model, or ``openai:NAME``, a model of a server.

    The server is that of ``$OPENAI_BASE_URL`` (such as ``http://localhost:8000/v1``; OpenAI's own
    without it), the key ``$OPENAI_API_KEY``.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ModelError: there is no such sentence-transformers model, or it is damaged.
        ConfigError: the address is none.
    """
    if name.startswith(_SERVER):
        # imported here: most evaluations ask no server
        from simcse_kit.evaluation.server import KEY, URL, EmbeddingServer

        url = os.environ.get(URL, _DEFAULT_URL)
        return EmbeddingServer(name.removeprefix(_SERVER), url, key=os.environ.get(KEY))
    return SentenceTransformersModel(name.removeprefix(_ST))
