"""Prompts: texts in front of sentences, chosen by their name or by the role of the sentences."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakSet

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest
from simcse_kit.utils.prompt_choice import Role

__all__ = ["check_prompt", "chosen_prompt", "role_prompt"]

logger = logging.getLogger(__name__)

# Names that some encoders have in place of "document".
_OTHER_NAMES = ("passage", "corpus")
_WARNED: WeakSet[EncoderModel] = WeakSet()


def check_prompt(prompt: Any, name: Any) -> None:
    """Refuse a prompt and a prompt name that are not texts, or that are both given.

    Raises:
        ConfigError: A value is not a text, or both are given.
    """
    for argument, value in (("prompt", prompt), ("prompt_name", name)):
        if not isinstance(value, str | None):
            raise ConfigError(f"encode({argument}={value!r}); give a text")
    if prompt is not None and name is not None:
        raise ConfigError(
            f"encode(prompt={prompt!r}, prompt_name={name!r}); give the text or the name, not both"
        )


def chosen_prompt(model: EncoderModel, prompt: str | None, name: str | None) -> str:
    """Choose the text in front of the sentences of one call.

    Args:
        model: Encoder.
        prompt: Text, or None.
        name: Name of a prompt of the encoder, or None. Without text and name, the default prompt of
            the encoder is chosen.

    Raises:
        ConfigError: The encoder has no prompt of this name; the message lists its names.
    """
    if prompt is not None:
        return prompt
    if name is None:
        return model.prompt
    if name not in model.prompts:
        names = list(model.prompts)
        known = f"it has {', '.join(map(repr, names))}" if names else "it has no named prompt"
        remedy = "give one of them, or the text as prompt" if names else "give the text as prompt"
        raise ConfigError(
            f"the encoder has no prompt {name!r}{closest(name, names)}; {known}; {remedy}"
        )
    return model.prompts[name]


def role_prompt(model: EncoderModel, role: Role) -> str:
    """Choose the prompt of queries or of documents; empty if the encoder has none of this name.

    As in sentence-transformers 6, neither its default prompt nor a prompt ``passage`` is used
    instead.
    """
    others = [name for name in _OTHER_NAMES if model.prompts.get(name)]
    if role == "document" and role not in model.prompts and others and model not in _WARNED:
        _WARNED.add(model)
        logger.warning(
            "the encoder has a prompt %r and no prompt 'document', so documents get none, as in "
            "sentence-transformers; give the prompt name %r to use it",
            *[others[0]] * 2,
        )
    return model.prompts.get(role, "")
