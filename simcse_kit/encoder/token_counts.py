"""Statistics of what tokenizing loses: unknown tokens, truncated, empty and equal sentences."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from simcse_kit.encoder.model import EncoderModel

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
"""Share of unknown tokens, or of sentences with equal ids, from which on a warning is logged."""

# Messages about a tokenizer that are not repeated, since a dev set is encoded many times.
_REMEMBERED = 16
_LOGGED: WeakKeyDictionary[Any, deque[str]] = WeakKeyDictionary()
_COLLECTED: ContextVar[TokenCounts | None] = ContextVar("collected", default=None)


@dataclass
class TokenCounts:
    """Counts over distinct sentences.

    Attributes:
        sentences: Number of distinct sentences.
        tokens: Number of their tokens, without special tokens, prompt and template.
        cut: Number of sentences longer than the maximum length.
        unknown: Number of tokens for text that is unknown to the vocabulary.
        with_unknown: Number of sentences with at least one unknown token.
        empty: Number of sentences that are not blank but have no tokens.
        same_ids: Number of sentences with the token ids of an earlier one.
        examples: One sentence for ``unknown`` and ``empty``, two for ``same_ids``.
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
        """Add the counts of further sentences, without comparing the ids of the two."""
        for name, value in other.to_json().items():
            setattr(self, name, getattr(self, name) + value)
        self.examples = other.examples | self.examples

    def to_json(self) -> dict[str, Any]:
        """Return the counts without the examples."""
        return {name: value for name, value in asdict(self).items() if name != "examples"}

    def say(self, tokenizer: Any, length: int | None) -> None:
        """Log what was lost; equal lines only once per tokenizer.

        Inside :func:`collected` the counts are also added to those of the block.

        Args:
            tokenizer: Tokenizer of the sentences.
            length: Maximum number of tokens per sentence.
        """
        outer = _COLLECTED.get()
        if outer is not None:
            outer.add(self)
        for level, message in self._losses(length):
            logged = _LOGGED.setdefault(tokenizer, deque(maxlen=_REMEMBERED))
            if message not in logged:
                logged.append(message)
                logger.log(level, "%s", message)

    def _losses(self, length: int | None) -> list[tuple[int, str]]:
        found = []
        if self.cut:
            what = (
                f"{self.cut} of {self.sentences} distinct sentences are longer than {length} "
                "tokens and were cut"
            )
            found.append((logging.WARNING, what))
        if self.unknown:
            what = (
                f"{self.unknown} of {self.tokens} tokens are unknown to the vocabulary of the "
                f"model ({percent(self.unknown_share)}), in {self.with_unknown} of "
                f"{self.sentences} distinct sentences, such as {self._example('unknown')}"
            )
            if self.unknown_share >= WARNED_SHARE:
                what += (
                    "; the model does not know this script or these characters, and sentences of "
                    "unknown tokens get nearly equal vectors; use a model of this language"
                )
            found.append((_level(self.unknown_share), what))
        if self.empty:
            what = (
                f"{self.empty} of {self.sentences} distinct sentences have no token left, such as "
                f"{self._example('empty')}: the tokenizer drops all their characters"
            )
            found.append((logging.WARNING, what))
        if self.same_ids:
            what = (
                f"{self.same_ids} of {self.sentences} distinct sentences become the token ids of "
                f"another one and get its vector, such as {self._example('same_ids')}; unknown "
                "tokens, lower-casing, dropped characters or truncation make them equal"
            )
            found.append((_level(self.same_ids / self.sentences), what))
        return found

    def _example(self, name: str) -> str:
        return " and ".join(map(shown, self.examples[name]))


@contextmanager
def collected() -> Iterator[TokenCounts]:
    """Collect the counts of all sentences that this thread encodes inside the block."""
    counts = TokenCounts()
    token = _COLLECTED.set(counts)
    try:
        yield counts
    finally:
        _COLLECTED.reset(token)


def count_tokens(
    model: EncoderModel, sentences: Sequence[str], *, max_length: int | None = None
) -> TokenCounts:
    """Tokenize the distinct sentences and count what is lost, without embedding or logging."""
    distinct = list(dict.fromkeys(sentences))
    rows, cut = model.tokenize(distinct, max_length=max_length)
    return count_rows(model, distinct, rows, cut)


def count_rows(
    model: EncoderModel,
    texts: Sequence[str],
    rows: Sequence[Sequence[int]],
    cut: int,
    seen: dict[int, str] | None = None,
    prompt: str | None = None,
) -> TokenCounts:
    """Count what was lost of distinct texts, given the result of ``model.tokenize``.

    Args:
        model: Encoder.
        texts: Distinct texts.
        rows: Token ids of each text.
        cut: Number of truncated texts.
        seen: Texts of earlier calls by the hashes of their token ids, to which these are added;
            None to compare these texts among themselves only.
        prompt: Text in front of the texts; None for the default one of the model.
    """
    if not rows:
        return TokenCounts()
    # The tokens around every sentence: special tokens, prompt, template.
    (bare,), _ = model.tokenize([""], prompt=prompt)
    has_special = (
        model.template is not None
        or bool(model.prompt if prompt is None else prompt)
        or model.tokenizer.num_special_tokens_to_add() > 0
    )
    special = len(bare) if has_special else 0
    counts = TokenCounts(sentences=len(rows), cut=cut)
    nothing = [at for at, row in enumerate(rows) if len(row) <= len(bare) and row == bare]
    counts.tokens = max(0, sum(map(len, rows)) - special * len(rows))
    if not special:  # an empty sentence is a pad token, which represents no text
        counts.tokens -= len(nothing)
    unknown_id = model.tokenizer.unk_token_id
    if unknown_id is not None:
        around = bare.count(unknown_id)
        # Negative for an empty sentence without special tokens, if the pad token is unknown.
        unknown = [row.count(unknown_id) - around for row in rows]
        affected = [at for at, number in enumerate(unknown) if number > 0]
        if affected:
            counts.unknown = sum(unknown[at] for at in affected)
            counts.with_unknown = len(affected)
            worst = max(affected, key=lambda at: unknown[at] / max(1, len(rows[at]) - special))
            counts.examples["unknown"] = (texts[worst],)
    empty = [texts[at] for at in nothing if texts[at].strip()]
    if empty:
        counts.empty = len(empty)
        counts.examples["empty"] = (empty[0],)
    # Hashes of tuples of integers take less memory than the tuples.
    first = {} if seen is None else seen
    for text, row in zip(texts, rows, strict=True):
        before = first.setdefault(hash(tuple(row)), text)
        if before is not text:
            counts.same_ids += 1
            counts.examples.setdefault("same_ids", (before, text))
    return counts


def _level(share: float) -> int:
    return logging.WARNING if share >= WARNED_SHARE else logging.INFO


def shown(text: str, limit: int = 60) -> str:
    """Return the first ``limit`` characters of ``text`` as a quoted literal, for messages."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def percent(share: float) -> str:
    """Format a share from 0 to 1, such as ``22 %`` or ``0.03 %``."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"
