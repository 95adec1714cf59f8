"""Sentences to token ids: prompt, lower-casing, template and truncation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from simcse_kit.encoder.forked_processes import TOKENIZING
from simcse_kit.encoder.inputs import whole_number
from simcse_kit.errors import ConfigError, ModelError

__all__ = [
    "MASK",
    "SENTENCE",
    "Template",
    "Tokenization",
    "TokenizationField",
    "check_length",
    "check_template",
]

SENTENCE = "[X]"
MASK = "[MASK]"

Value = TypeVar("Value")

# Number of sentences per call of the tokenizer, whose own objects take kilobytes per sentence.
TOKENIZE_AT_ONCE = 8192


class Tokenization:
    """The steps from a sentence to its token ids.

    Args:
        tokenizer: Hugging Face tokenizer.
        positions: Number of positions of the model; None if it has no limit.
        max_length: Maximum number of tokens per sentence, special tokens included. By default
            the smaller of the limits of tokenizer and model.
        lowercase: Whether sentences are lower-cased.
        prompt: Text put in front of every sentence, unless a call gives another one.
        template: Text around every sentence, see :class:`Template`; empty for none.

    Attributes:
        prompts: Further prompts by their names.
        include_prompt: Whether the tokens of a prompt are pooled.

    Raises:
        ConfigError: The length or the template is not allowed.
        ModelError: A template is given and the tokenizer has no mask token.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        positions: int | None = None,
        max_length: int | None = None,
        lowercase: bool = False,
        prompt: str = "",
        template: str = "",
    ):
        self.tokenizer = tokenizer
        self.positions = positions
        self.lowercase = lowercase
        self.prompt = prompt
        self.prompts: dict[str, str] = {}
        self.include_prompt = True
        self.template = Template.of(template, tokenizer) if template else None
        if max_length is None:
            # Tokenizers without a limit of their own report an astronomic number.
            own = min(int(tokenizer.model_max_length), 10**6)
            self.max_length = own if positions is None else min(own, positions)
        else:
            self.max_length = check_length(max_length, positions)

    @property
    def empty_id(self) -> int:
        """Token id of a sentence without tokens, which otherwise would have nothing to pool."""
        return cast(int, self.tokenizer.pad_token_id)

    def rows(
        self, texts: Sequence[str], max_length: int | None = None, prompt: str | None = None
    ) -> tuple[list[list[int]], int]:
        """Tokenize sentences, special tokens included.

        Args:
            texts: Sentences.
            max_length: Maximum number of tokens per sentence, instead of :attr:`max_length`.
            prompt: Text put in front of every sentence, instead of :attr:`prompt`.

        Returns:
            The token ids of each sentence, and the number of truncated sentences.

        Raises:
            ConfigError: The length is not allowed, or too small for the template.
        """
        length = self.max_length if max_length is None else check_length(max_length, self.positions)
        prompt = self.prompt if prompt is None else prompt
        texts = [prompt + text for text in texts]
        if self.lowercase:
            texts = [text.lower() for text in texts]
        if self.template is not None:
            return self.template.rows(self.tokenizer, texts, length)
        rows, cut = _token_ids(self.tokenizer, texts, length)
        return [row or [self.empty_id] for row in rows], cut

    def prompt_length(self, prompt: str) -> int:
        """Count the tokens of a prompt: those before a sentence, the first special ones included.

        A special token at the end is not counted.
        """
        text = prompt.lower() if self.lowercase else prompt
        ((*ids, last),), _ = _token_ids(self.tokenizer, [text], self.max_length)
        return len(ids) + (last not in self.tokenizer.all_special_ids)


class TokenizationField(Generic[Value]):
    """An attribute of a model that reads and sets the same attribute of its ``tokenization``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type | None = None) -> Value:
        return cast(Value, getattr(model.tokenization, self._name))

    def __set__(self, model: Any, value: Value) -> None:
        setattr(model.tokenization, self._name, value)


def check_length(wanted: Any, positions: int | None) -> int:
    """Return a sentence length that a model with ``positions`` positions can use.

    Raises:
        ConfigError: The length is not an integer, less than 3, or more than ``positions``.
    """
    length = whole_number(wanted)
    if length is None or length < 3 or (positions is not None and length > positions):
        most = "" if positions is None else f" and at most {positions}, the positions of this model"
        raise ConfigError(f"max_length is {wanted!r}; it must be at least 3{most}")
    return length


def _token_ids(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZE_AT_ONCE):
        part = list(texts[start : start + TOKENIZE_AT_ONCE])
        with TOKENIZING:
            encoded = tokenizer(
                part,
                truncation=True,
                max_length=length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        ids: list[list[int]] = encoded["input_ids"]
        full = [number for number, row in enumerate(ids) if len(row) >= length]
        if tokenizer.is_fast:
            cut += sum(bool(encoded.encodings[number].overflowing) for number in full)
        elif full:
            with TOKENIZING:
                whole = tokenizer(
                    [part[number] for number in full], truncation=False, verbose=False
                )
            cut += sum(len(row) > length for row in whole["input_ids"])
        rows += ids
    return rows, cut


# ---------------------------------------------------------------- template


def check_template(text: str) -> str:
    """Return ``text`` if it is a template.

    Raises:
        ConfigError: ``[X]`` and ``[MASK]`` do not occur exactly once each.
    """
    if not isinstance(text, str) or text.count(SENTENCE) != 1 or text.count(MASK) != 1:
        raise ConfigError(
            f"template {text!r} must hold {SENTENCE} once, where the sentence goes, and {MASK} "
            f"once, where the vector is read, such as '\"{SENTENCE}\" means {MASK}.'"
        )
    return text


@dataclass(frozen=True)
class Template:
    """A prompt template in token ids (PromptBERT, arXiv 2201.04337).

    Rows are put together from token ids, so that truncation shortens the sentence and never the
    template.

    Attributes:
        text: Template with ``[X]`` for the sentence and ``[MASK]`` for the token whose state
            becomes the vector.
        head: Token ids before the sentence, special tokens included.
        tail: Token ids after the sentence.
        place: Position of the mask token in a row: counted from the start, or from the end if
            negative.
        special: Number of ids in ``head`` and in ``tail`` that the tokenizer adds.
    """

    text: str
    head: tuple[int, ...]
    tail: tuple[int, ...]
    place: int
    special: tuple[int, int]

    @classmethod
    def of(cls, text: str, tokenizer: Any) -> Template:
        """Tokenize a template.

        Raises:
            ConfigError: The text is not a template.
            ModelError: The tokenizer has no mask token.
        """
        mask = tokenizer.mask_token
        if mask is None:
            raise ModelError(
                f"template {check_template(text)!r} needs a mask token and the tokenizer has none; "
                "use a masked language model"
            )
        before, after = (
            tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            for part in check_template(text).replace(MASK, mask).split(SENTENCE)
        )
        # Every tokenizer keeps the mask token whole; the ids around it are the special tokens.
        around: list[int] = tokenizer(mask, verbose=False)["input_ids"]
        middle = around.index(tokenizer.mask_token_id)
        head = (*around[:middle], *before)
        tail = (*after, *around[middle + 1 :])
        in_head = tokenizer.mask_token_id in before
        place = (
            head.index(tokenizer.mask_token_id)
            if in_head
            else tail.index(tokenizer.mask_token_id) - len(tail)
        )
        return cls(text, head, tail, place, (middle, len(around) - middle - 1))

    def rows(
        self, tokenizer: Any, texts: Sequence[str], length: int
    ) -> tuple[list[list[int]], int]:
        """Tokenize sentences inside the template, at most ``length`` tokens with the template.

        Returns:
            The token ids of each row, and the number of truncated sentences.

        Raises:
            ConfigError: The template leaves no token for the sentence.
        """
        taken = len(self.head) + len(self.tail)
        if length <= taken:
            raise ConfigError(
                f"max_length is {length} but the template {self.text!r} alone takes {taken} "
                f"tokens; use at least {taken + 1}, better {taken + 32}"
            )
        start, end = self.special
        rows, cut = _token_ids(tokenizer, texts, length - taken + start + end)
        return [[*self.head, *row[start : len(row) - end], *self.tail] for row in rows], cut
