"""The prompts that a caller chooses for texts, queries and documents, and encoding with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from simcse_kit.errors import ConfigError

__all__ = ["DEFAULT_PROMPTS", "PromptChoice", "Role", "encode_as", "has_role_prompts"]

Role: TypeAlias = Literal["query", "document"]
"""What texts are in retrieval and in mining."""


@dataclass(frozen=True)
class PromptChoice:
    """Prompts in place of those that an encoder chooses itself.

    Attributes:
        texts: One text in front of everything that is encoded, or two: for queries (and texts that
            are neither), and for documents. Empty for the encoder's own choice.
        names: One or two names of prompts of the encoder, instead of their texts.

    Raises:
        ConfigError: There are more than two, or texts and names.
    """

    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.texts) > 2 or len(self.names) > 2 or (self.texts and self.names):
            raise ConfigError(
                f"the prompts are {[*self.texts]} and the prompt names {[*self.names]}; give one "
                "prompt or one name, or two of the same kind: for queries and for documents"
            )

    @classmethod
    def of(
        cls, texts: str | Sequence[str] | None, names: str | Sequence[str] | None
    ) -> PromptChoice:
        """Make a choice from one or two texts or names, or None for none.

        Examples:
            >>> PromptChoice.of("query: ", None).texts
            ('query: ',)
        """
        first, second = (
            () if given is None else (given,) if isinstance(given, str) else tuple(given)
            for given in (texts, names)
        )
        return cls(first, second)

    def __bool__(self) -> bool:
        return bool(self.texts or self.names)

    def options(self, role: Role | None) -> dict[str, str]:
        """Return the arguments of ``encode`` for texts of a role, or of none."""
        place = -1 if role == "document" else 0
        if self.texts:
            return {"prompt": self.texts[place]}
        return {"prompt_name": self.names[place]} if self.names else {}


DEFAULT_PROMPTS = PromptChoice()
"""The prompts that the encoder chooses itself."""


def has_role_prompts(encoder: Any, prompts: PromptChoice = DEFAULT_PROMPTS) -> bool:
    """Return whether an encoder may give one text different vectors as query and as document."""
    if prompts:
        return len({*prompts.texts, *prompts.names}) > 1
    own = getattr(encoder, "prompts", None)
    if not callable(getattr(encoder, "encode_query", None)) or not isinstance(own, Mapping):
        return False
    default = getattr(encoder, "prompt", "") or getattr(encoder, "default_prompt_name", None)
    return bool(default or own.get("query") or own.get("document"))


def encode_as(
    encoder: Any,
    texts: list[str],
    role: Role | None = None,
    prompts: PromptChoice = DEFAULT_PROMPTS,
    **options: Any,
) -> Any:
    """Encode texts with the prompt of their role.

    Args:
        encoder: An object with ``encode``, and perhaps ``encode_query`` and ``encode_document``.
        texts: The texts.
        role: Whether they are queries or documents; None for neither.
        prompts: Prompts in place of the encoder's own choice. A text is put in front of the texts
            if ``encode`` has no argument ``prompt``.
        **options: Further arguments of ``encode``.

    Raises:
        ConfigError: A name is given, and the encoder has no named prompts.

    Examples:
        >>> class Lengths:
        ...     def encode(self, texts):
        ...         return [len(text) for text in texts]
        >>> encode_as(Lengths(), ["a", "abc"], prompts=PromptChoice.of("query: ", None))
        [8, 10]
    """
    if not prompts:
        own = getattr(encoder, f"encode_{role}", None) if has_role_prompts(encoder) else None
        return (encoder.encode if role is None or own is None else own)(texts, **options)
    chosen = prompts.options(role)
    parameters = inspect.signature(encoder.encode).parameters
    if "prompt" in parameters or isinstance(getattr(encoder, "prompts", None), Mapping):
        return encoder.encode(texts, **chosen, **options)
    if "prompt" not in chosen:
        raise ConfigError(
            f"the encoder is {type(encoder).__name__}, which has no named prompts; give the text "
            "of the prompt"
        )
    return encoder.encode([chosen["prompt"] + text for text in texts], **options)
