"""Whatever can be evaluated, by name."""

from __future__ import annotations

from pathlib import Path

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.adapters import is_external, open_external
from simcse_kit.evaluation.embed import Encoder

__all__ = ["check_model", "open_encoder"]


def check_model(name: str) -> Path | None:
    """The folder of a model of ours, and None of others; so a wrong name is met before any work.

    Args:
        name: as for :func:`open_encoder`.

    Raises:
        ModelError: there is no such folder, here or on the Hub.
    """
    return None if is_external(name) else resolve_model(name)


def open_encoder(name: str, *, pooling: str | None = None) -> Encoder:
    """Open a model to evaluate.

    Args:
        name: what :meth:`SentenceEncoder.load` takes; or ``st:NAME``, a sentence-transformers
            model; or ``openai:NAME``, a model of an OpenAI-compatible server, see
            :func:`~simcse_kit.evaluation.adapters.open_external`.
        pooling: in place of the model's own recipe; of ours only.

    Raises:
        ConfigError: a pooling for a model that is not ours.
        ModelError: it cannot be opened.
    """
    if not is_external(name):
        return SentenceEncoder.load(name, pooling=pooling)
    if pooling is not None:
        raise ConfigError(f"{name} pools in its own way; leave --pooling out")
    return open_external(name)
