"""Sentences put into a template that asks the model for a word (PromptBERT, arXiv 2201.04337)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simcse_kit.encoder.inference import token_ids
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["MASK", "SENTENCE", "Template", "check_template"]

SENTENCE = "[X]"
MASK = "[MASK]"


def check_template(text: str) -> str:
    """Return ``text`` if it is a template.

    Raises:
        ConfigError: it does not have one place for the sentence and one for the mask token.
    """
    if not isinstance(text, str) or text.count(SENTENCE) != 1 or text.count(MASK) != 1:
        raise ConfigError(
            f"template {text!r} must hold {SENTENCE} once, where the sentence goes, and {MASK} "
            f"once, where the vector is read, such as '\"{SENTENCE}\" means {MASK}.'"
        )
    return text


@dataclass(frozen=True)
class Template:
    """A template in token ids. Made token by token, so that a cut takes words of the sentence.

    Attributes:
        text: with ``[X]`` where the sentence goes and ``[MASK]`` where the vector is read.
        head: ids in front of the sentence, special tokens included.
        tail: ids behind it.
        place: where the mask token stands in a row: counted from the start, or, below 0, from
            the end.
        special: how many of the ids in ``head`` and in ``tail`` the tokenizer adds by itself.
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
            ConfigError: it is no template.
            ModelError: the tokenizer has no mask token.
        """
        mask = tokenizer.mask_token
        if mask is None:
            raise ModelError(
                f"template {check_template(text)!r} needs a mask token and the tokenizer has none; "
                "use a masked language model"
            )
        whole = check_template(text).replace(MASK, mask)
        before, after = (_plain(tokenizer, part) for part in whole.split(SENTENCE))
        # What the tokenizer adds around the mask token, which no tokenizer takes apart.
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
        """Token ids of each text in the template, and how many texts were cut.

        Args:
            tokenizer: that of :meth:`of`.
            texts: the sentences.
            length: most tokens of a row, those of the template included.

        Raises:
            ConfigError: the template leaves no room for a sentence.
        """
        taken = len(self.head) + len(self.tail)
        if length <= taken:
            raise ConfigError(
                f"max_length is {length} but the template {self.text!r} alone takes {taken} "
                f"tokens; use at least {taken + 1}, better {taken + 32}"
            )
        start, end = self.special
        rows, cut = token_ids(tokenizer, texts, length - taken + start + end)
        return [[*self.head, *row[start : len(row) - end], *self.tail] for row in rows], cut


def _plain(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
