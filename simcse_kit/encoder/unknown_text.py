"""The share of characters that a tokenizer does not know, and the refusal of unknown text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from simcse_kit.encoder.forked_processes import TOKENIZING
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.token_counts import shown
from simcse_kit.errors import DataError

__all__ = ["SAMPLE", "Coverage", "check_known", "coverage", "some"]

SAMPLE = 1024
"""Number of sentences in a sample of a text."""

# Text is refused if a larger share of its characters is lost.
_MOST_LOST = 0.5
# Number of characters to check per sentence; the beginning shows its script.
_CHARACTERS = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Coverage:
    """How much of the text of some sentences the tokenizer keeps.

    Attributes:
        sentences: Number of sentences.
        characters: Number of their characters, without spaces, format and control characters.
        lost: Number of characters without a known token: unknown or dropped.
        example: Sentence that loses the largest share; empty if none loses any.
    """

    sentences: int
    characters: int
    lost: int
    example: str

    @property
    def share(self) -> float:
        """Share of the characters that are lost, 0 to 1."""
        return self.lost / self.characters if self.characters else 0.0


def some(items: Sequence[T], most: int = SAMPLE) -> list[T]:
    """Draw at most ``most`` of the items with a fixed seed, and keep their order."""
    if len(items) <= most:
        return list(items)
    return [items[at] for at in sorted(random.Random(0).sample(range(len(items)), most))]


def coverage(model: EncoderModel, sentences: Sequence[str]) -> Coverage:
    """Count the characters that the tokenizer loses among the first 1,000 of each sentence."""
    texts = [text[:_CHARACTERS] for text in sentences]
    if model.lowercase:
        texts = [text.lower() for text in texts]
    characters = lost = 0
    worst, example = 0.0, ""
    for text, known in zip(texts, _known_characters(model.tokenizer, texts), strict=True):
        counted = [at for at, sign in enumerate(text) if sign.isprintable() and sign != " "]
        gone = sum(not known[at] for at in counted)
        characters, lost = characters + len(counted), lost + gone
        if counted and gone / len(counted) > worst:
            worst, example = gone / len(counted), text
    return Coverage(len(texts), characters, lost, example)


def check_known(
    model: EncoderModel,
    sentences: Sequence[str],
    *,
    what: str,
    allow: bool,
    remedy: str = "--allow-unknown (in Python: allow_unknown=True)",
) -> Coverage:
    """Refuse text of which the tokenizer loses more than half.

    Args:
        model: Encoder.
        sentences: Text, of which a sample of 1,024 sentences is checked.
        what: Name of the text, for the message.
        allow: Whether unknown text is accepted.
        remedy: Option that makes the text accepted, for the message.

    Raises:
        DataError: The text is mostly unknown.
    """
    found = coverage(model, some(sentences))
    if found.share > _MOST_LOST and not allow:
        raise DataError(
            f"{what} is mostly unknown to the model: its tokenizer has no token for "
            f"{100 * found.share:.0f} % of the characters of {found.sentences} sentences, such as "
            f"{shown(found.example)}, and gives them nearly equal vectors; use a model whose "
            f"vocabulary has this script, or continue with {remedy}"
        )
    return found


def _known_characters(tokenizer: Any, texts: list[str]) -> list[list[bool]]:
    """Find out for each character of each text whether a known token covers it."""
    if not texts:
        return []
    unknown_id = tokenizer.unk_token_id
    fast = {"return_attention_mask": False, "return_token_type_ids": False}
    options = fast | {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    with TOKENIZING:
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False, **options)
    rows = encoded["input_ids"]
    if not tokenizer.is_fast:
        return [_by_share(text, row, unknown_id) for text, row in zip(texts, rows, strict=True)]
    found = []
    for text, row, offsets in zip(texts, rows, encoded["offset_mapping"], strict=True):
        known = [False] * len(text)
        # Unknown tokens last: a token of the space before a word may claim its first character.
        for token, (start, end) in sorted(
            zip(row, offsets, strict=True), key=lambda pair: pair[0] == unknown_id
        ):
            known[start:end] = [token != unknown_id] * (end - start)
        found.append(known)
    return found


def _by_share(text: str, row: Sequence[int], unknown_id: int | None) -> list[bool]:
    """Mark the share of known tokens from the left, for tokenizers without offsets."""
    share = 1 - row.count(unknown_id) / len(row) if row and unknown_id is not None else bool(row)
    kept = round(share * len(text))
    return [True] * kept + [False] * (len(text) - kept)
