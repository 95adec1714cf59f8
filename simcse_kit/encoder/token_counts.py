"""What tokenizing loses of sentences, counted: unknown tokens, cut, empty and equal sentences."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = [
    "WARNED_SHARE",
    "TokenCounts",
    "collected",
    "count_rows",
    "count_tokens",
    "percent",
    "shown",
]

logger = logging.getLogger(__name__)

WARNED_SHARE = 0.03
"""From this share of unknown tokens, or of sentences with equal ids, a warning is logged."""

# Messages about one tokenizer that are not repeated: a dev set is encoded many times.
_REMEMBERED = 16
_SAID: WeakKeyDictionary[Any, deque[str]] = WeakKeyDictionary()
_COLLECTED: ContextVar[TokenCounts | None] = ContextVar("collected", default=None)


@dataclass
class TokenCounts:
    """Counts over distinct sentences.

    Attributes:
        sentences: distinct sentences.
        tokens: their tokens; special tokens and those of a prompt or template are not counted.
        cut: sentences longer than the maximum length.
        unknown: tokens that stand for what the vocabulary does not have.
        with_unknown: sentences with at least one such token.
        empty: sentences that are not blank and of which no token is left.
        same_ids: sentences with the token ids of another one before them.
        examples: a sentence for ``unknown`` and ``empty``, two for ``same_ids``.
    """

    sentences: int = 0
    tokens: int = 0
    cut: int = 0
    unknown: int = 0
    with_unknown: int = 0
    empty: int = 0
    same_ids: int = 0
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown, 0 to 1."""
        return self.unknown / self.tokens if self.tokens else 0.0

    def add(self, other: TokenCounts) -> None:
        """Add the counts of further sentences; equal ids across the two are not looked for."""
        for name in ("sentences", "tokens", "cut", "unknown", "with_unknown", "empty", "same_ids"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = other.examples | self.examples

    def to_json(self) -> dict[str, Any]:
        """The counts without examples."""
        return {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "cut": self.cut,
            "unknown": self.unknown,
            "with_unknown": self.with_unknown,
            "empty": self.empty,
            "same_ids": self.same_ids,
        }

    def say(self, encoder: SentenceEncoder, length: int) -> None:
        """Log what was lost; the same line about the same tokenizer only once, except for cuts.

        Inside :func:`collected` the counts are handed on as well.

        Args:
            encoder: what tokenized.
            length: tokens that a sentence may have.
        """
        outer = _COLLECTED.get()
        if outer is not None:
            outer.add(self)
        if self.cut:
            logger.warning(
                "%d of %d distinct sentences are longer than %d tokens and were cut",
                self.cut,
                self.sentences,
                length,
            )
        for level, message in self._losses():
            said = _SAID.setdefault(encoder.tokenizer, deque(maxlen=_REMEMBERED))
            if message not in said:
                said.append(message)
                logger.log(level, "%s", message)

    def _losses(self) -> list[tuple[int, str]]:
        found = []
        if self.unknown:
            what = (
                f"{self.unknown} of {self.tokens} tokens are unknown to the vocabulary of the "
                f"model ({percent(self.unknown_share)}), in {self.with_unknown} of "
                f"{self.sentences} distinct sentences, such as {_quoted(self.examples['unknown'])}"
            )
            if self.unknown_share >= WARNED_SHARE:
                what += (
                    "; the model does not know this script or these signs, and sentences of "
                    "unknown tokens get nearly equal vectors; use a model of this language"
                )
            found.append((_level(self.unknown_share), what))
        if self.empty:
            what = (
                f"{self.empty} of {self.sentences} distinct sentences have no token left, such as "
                f"{_quoted(self.examples['empty'])}: the tokenizer drops all their characters"
            )
            found.append((logging.WARNING, what))
        if self.same_ids:
            what = (
                f"{self.same_ids} of {self.sentences} distinct sentences become the token ids of "
                f"another one and get its vector, such as {_quoted(self.examples['same_ids'])}; "
                "unknown tokens, lower-casing, dropped signs or cutting make them equal"
            )
            found.append((_level(self.same_ids / self.sentences), what))
        return found


@contextmanager
def collected() -> Iterator[TokenCounts]:
    """Counts of all that encoders of this package tokenize inside, in this thread."""
    counts = TokenCounts()
    token = _COLLECTED.set(counts)
    try:
        yield counts
    finally:
        _COLLECTED.reset(token)


def count_tokens(
    encoder: SentenceEncoder, sentences: Sequence[str], *, max_length: int | None = None
) -> TokenCounts:
    """Tokenize sentences and count what is lost; nothing is embedded and nothing logged.

    Args:
        encoder: whose tokenizer, prompt, template and maximum length are used.
        sentences: equal ones count once.
        max_length: tokens of a sentence, in place of the encoder's own.
    """
    distinct = list(dict.fromkeys(sentences))
    rows, cut = encoder.tokenize(distinct, max_length=max_length)
    return count_rows(encoder, distinct, rows, cut)


def count_rows(
    encoder: SentenceEncoder, texts: Sequence[str], rows: Sequence[Sequence[int]], cut: int
) -> TokenCounts:
    """Count what was lost of sentences that are tokenized already.

    Args:
        encoder: what tokenized them.
        texts: distinct sentences.
        rows: the token ids of each, as ``encoder.tokenize`` gives them.
        cut: how many of them were cut.
    """
    if not rows:
        return TokenCounts()
    # What surrounds every sentence: special tokens, prompt, template.
    (bare,), _ = encoder.tokenize([""])
    special = _special(encoder, bare)
    counts = TokenCounts(sentences=len(rows), cut=cut)
    nothing = [at for at, row in enumerate(rows) if len(row) <= len(bare) and row == bare]
    counts.tokens = max(0, sum(map(len, rows)) - special * len(rows))
    if not special:  # a pad token stands for nothing
        counts.tokens -= len(nothing)
    unknown_id = encoder.tokenizer.unk_token_id
    if unknown_id is not None:
        around = bare.count(unknown_id)
        unknown = [row.count(unknown_id) - around for row in rows]
        # Fewer than in the bare row: an empty sentence without special tokens is one pad token.
        counts.unknown = sum(number for number in unknown if number > 0)
        if counts.unknown:
            affected = [at for at, number in enumerate(unknown) if number > 0]
            counts.with_unknown = len(affected)
            worst = max(affected, key=lambda at: unknown[at] / max(1, len(rows[at]) - special))
            counts.examples["unknown"] = (texts[worst],)
    empty = [texts[at] for at in nothing if texts[at].strip()]
    if empty:
        counts.empty = len(empty)
        counts.examples["empty"] = (empty[0],)
    # Hashes of tuples of integers take less memory than the tuples.
    counts.same_ids = len(rows) - len({hash(tuple(row)) for row in rows})
    if counts.same_ids:
        counts.examples["same_ids"] = _first_equal(texts, rows)
    return counts


def _special(encoder: SentenceEncoder, bare: Sequence[int]) -> int:
    """Tokens of every row that are not of the sentence."""
    plain = encoder.template is None and not encoder.prompt
    if plain and encoder.tokenizer.num_special_tokens_to_add() == 0:
        return 0
    return len(bare)


def _first_equal(texts: Sequence[str], rows: Sequence[Sequence[int]]) -> tuple[str, str]:
    first: dict[int, int] = {}
    for at, row in enumerate(rows):
        before = first.setdefault(hash(tuple(row)), at)
        if before != at:
            return texts[before], texts[at]
    raise AssertionError("no two rows are equal")


def _level(share: float) -> int:
    return logging.WARNING if share >= WARNED_SHARE else logging.INFO


def shown(text: str, limit: int = 60) -> str:
    """``text`` as a quoted literal of about ``limit`` characters, for messages."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def percent(share: float) -> str:
    """A share from 0 to 1 in words, such as ``22 %`` or ``0.03 %``."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def _quoted(texts: Sequence[str]) -> str:
    return " and ".join(map(shown, texts))
