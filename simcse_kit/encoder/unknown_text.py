"""How many characters of a text a tokenizer keeps, and the refusal of text it does not know."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from simcse_kit.encoder.forked_processes import TOKENIZING
from simcse_kit.encoder.token_counts import shown
from simcse_kit.errors import DataError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SAMPLE", "Coverage", "check_known", "coverage", "some"]

SAMPLE = 1024
"""Sentences that are looked at."""

# Text of which a larger share is lost is refused.
_MOST_LOST = 0.5
# The beginning of a sentence shows its script.
_CHARACTERS = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Coverage:
    """What is left of the characters of some sentences.

    Attributes:
        sentences: sentences looked at.
        characters: their characters; spaces, format and control characters do not count.
        lost: those that no known token stands for: unknown ones, and those that are dropped.
        example: the sentence that loses the largest share; empty where none loses any.
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
    """``items``, or ``most`` of them drawn with a fixed seed, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[at] for at in sorted(random.Random(0).sample(range(len(items)), most))]


def coverage(encoder: SentenceEncoder, sentences: Sequence[str]) -> Coverage:
    """Count the characters of sentences that the encoder's tokenizer loses.

    Args:
        encoder: whose tokenizer is asked; its maximum length does not count.
        sentences: all of them are looked at, each up to its first 1,000 characters.
    """
    texts = [text[:_CHARACTERS] for text in sentences]
    if encoder.lowercase:
        texts = [text.lower() for text in texts]
    characters = lost = 0
    worst, example = 0.0, ""
    for text, known in zip(texts, _known_characters(encoder.tokenizer, texts), strict=True):
        counted = [at for at, sign in enumerate(text) if sign.isprintable() and sign != " "]
        gone = sum(not known[at] for at in counted)
        characters, lost = characters + len(counted), lost + gone
        if counted and gone / len(counted) > worst:
            worst, example = gone / len(counted), text
    return Coverage(len(texts), characters, lost, example)


def check_known(
    encoder: SentenceEncoder,
    sentences: Sequence[str],
    *,
    what: str,
    allow: bool,
    remedy: str = "--allow-unknown (in Python: allow_unknown=True)",
) -> Coverage:
    """Refuse text of which the tokenizer loses more than half.

    Args:
        encoder: whose tokenizer is asked.
        sentences: the text; of many, 1,024 are looked at.
        what: what the text is, for the message.
        allow: do not refuse.
        remedy: how the user allows it.

    Raises:
        DataError: the text is mostly unknown.
    """
    found = coverage(encoder, some(sentences))
    if found.share > _MOST_LOST and not allow:
        raise DataError(
            f"{what} is mostly unknown to the model: its tokenizer has no token for "
            f"{100 * found.share:.0f} % of the characters of {found.sentences} sentences, such as "
            f"{shown(found.example)}, and gives them nearly equal vectors; use a model whose "
            f"vocabulary has this script, or go on with {remedy}"
        )
    return found


def _known_characters(tokenizer: Any, texts: list[str]) -> list[Sequence[bool]]:
    """For each text, which of its characters a known token stands for."""
    if not texts:
        return []
    unknown_id = tokenizer.unk_token_id
    if not tokenizer.is_fast:
        # Without offsets: the share of known tokens, from the left.
        with TOKENIZING:
            rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [_by_share(text, row, unknown_id) for text, row in zip(texts, rows, strict=True)]
    with TOKENIZING:
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    found: list[Sequence[bool]] = []
    for text, row, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        known = [False] * len(text)
        # Unknown tokens last: a token of the space before a word may claim its first character.
        for token, (start, end) in sorted(
            zip(row, offsets, strict=True), key=lambda pair: pair[0] == unknown_id
        ):
            known[start:end] = [token != unknown_id] * (end - start)
        found.append(known)
    return found


def _by_share(text: str, row: Sequence[int], unknown_id: int | None) -> Sequence[bool]:
    share = 1 - row.count(unknown_id) / len(row) if row and unknown_id is not None else bool(row)
    kept = round(share * len(text))
    return [True] * kept + [False] * (len(text) - kept)
