"""Whatever can be evaluated, by name."""

from __future__ import annotations

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.evaluation.external import is_external, open_external

__all__ = ["open_encoder"]


def open_encoder(name: str, *, pooling: str | None = None) -> Encoder:
    """Open a model to evaluate.

    Args:
        name: what :meth:`SentenceEncoder.load` takes; or ``st:NAME``, a sentence-transformers
            model; or ``openai:NAME``, a model of an OpenAI-compatible server, see
            :func:`~simcse_kit.evaluation.external.open_external`.
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
