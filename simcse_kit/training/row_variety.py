"""Whether the rows of a training text differ enough to learn from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence

from simcse_kit.data.readers import Kind
from simcse_kit.errors import DataError
from simcse_kit.methods.common.base import Method

__all__ = ["ROWS", "check_distinct"]

logger = logging.getLogger(__name__)

ROWS = 10_000
"""Rows that are looked at."""

# Shares of the rows from which on a fault is one of the whole file, or worth a warning.
_ALL, _MANY, _SOME = 0.95, 0.5, 0.05

Row = tuple[Hashable, ...]


def check_distinct(
    rows: Sequence[Row],
    kind: Kind,
    method: type[Method],
    batch_size: int,
    *,
    what: str = "text",
    views_are_equal: bool = False,
) -> None:
    """Refuse rows that leave a method nothing to tell apart, and warn of those that leave little.

    Args:
        rows: some rows or all, each as its texts, or as anything that is equal where the texts
            count as equal; at least one.
        kind: what the rows are.
        method: the method to train with.
        batch_size: rows of a batch.
        what: what the items of a row are, in the singular, for messages.
        views_are_equal: no dropout and no augmentation tells two copies of a text apart.

    Raises:
        DataError: all texts are the same; most rows share a text, so that a batch has less than one
            other; hard negatives are the positives or anchors of their rows; or anchors and
            positives are the same and ``views_are_equal``.
    """
    sampled = f"{len(rows):,} rows" + (" of a sample" if len(rows) == ROWS else "")
    if len({item for row in rows for item in row}) == 1:
        raise DataError(
            f"all {sampled} have one and the same {what}{_named(rows[0][0])}, so there is nothing "
            "to tell apart; train on a text with different sentences"
        )
    pairs = [row for row in rows if len(row) > 1]
    if kind in ("pairs", "triplets", "labelled") and pairs:
        _check_positives(pairs, views_are_equal=views_are_equal)
    with_negative = 0
    if kind == "triplets":
        with_negative = _check_hard_negatives(pairs)
    if kind in ("texts", "pairs", "triplets"):
        _check_batches(
            rows, method, batch_size, what, sampled, has_negatives=with_negative > _SOME * len(rows)
        )


def _check_positives(pairs: Sequence[Row], *, views_are_equal: bool) -> None:
    share = sum(row[0] == row[1] for row in pairs) / len(pairs)
    if share >= _ALL and views_are_equal:
        raise DataError(
            f"in {100 * share:.0f} % of the rows anchor and positive are the same text, and "
            "without dropout their vectors are equal; use --set method.dropout=0.1, or other "
            "positives"
        )
    if share >= _MANY:
        logger.warning(
            "in %.0f %% of the rows anchor and positive are the same text, which only dropout or "
            "augmentation tells apart; is a column named twice?",
            100 * share,
        )


def _check_hard_negatives(rows: Sequence[Row]) -> int:
    """The number of rows with a hard negative that is not their own anchor or positive."""
    given = [row for row in rows if len(row) > 2]
    useful = sum(any(item not in row[:2] for item in row[2:]) for row in given)
    useless = len(given) - useful
    if given and useless >= _ALL * len(given):
        raise DataError(
            f"in {useless:,} of {len(given):,} rows the hard negative is the anchor or the "
            "positive itself; check the columns of the file, or leave the hard negatives out with "
            "--columns ANCHOR,POSITIVE"
        )
    if given and useless >= _SOME * len(given):
        logger.warning(
            "in %d of %d rows every hard negative is the anchor or the positive itself and counts "
            "for nothing",
            useless,
            len(given),
        )
    return useful


def _check_batches(
    rows: Sequence[Row],
    method: type[Method],
    batch_size: int,
    what: str,
    sampled: str,
    *,
    has_negatives: bool,
) -> None:
    """Look for one text that most rows share, as anchor or as positive."""
    place, (item, count) = max(
        (
            (place, Counter(row[place] for row in rows if len(row) > place).most_common(1)[0])
            for place in range(min(2, max(map(len, rows))))
        ),
        key=lambda found: found[1][1],
    )
    share = count / len(rows)
    if share < _MANY:
        return
    role = ("anchor", "positive")[place] if len(rows[0]) > 1 else what
    said = f"{100 * share:.0f} % of {sampled} have the same {role}{_named(item)}"
    others = batch_size * (1 - share)
    if method.needs_negatives and not has_negatives and others < 1:
        raise DataError(
            f"{said}, so that a batch of {batch_size} has less than one other to tell it from; "
            "remove the repetitions with: simcse data dedupe FILE --by anchor --output OTHER-FILE, "
            "or give other text"
        )
    logger.warning(
        "%s; a batch of %d has about %.0f others to tell it from: remove the repetitions with "
        "simcse data dedupe",
        said,
        batch_size,
        others,
    )


def _named(item: Hashable) -> str:
    """A text for messages; nothing where rows are of token ids."""
    if not isinstance(item, str):
        return ""
    return f" {item if len(item) <= 60 else item[:60] + '...'!r}"
