"""Checks of the training text: rows that differ enough to learn from, and known tokens."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence

from simcse_kit.data.readers import Kind
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import count_rows
from simcse_kit.encoder.unknown_text import SAMPLE, check_known, some
from simcse_kit.errors import DataError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.plan import RunPlan

__all__ = ["ROWS", "check_distinct", "check_vocabulary"]

logger = logging.getLogger(__name__)

ROWS = 10_000
"""Number of rows that are compared."""

# Shares of the rows: a fault of the whole file, of most rows, and of enough rows for a warning.
_ALL, _MOST, _SOME = 0.95, 0.5, 0.05

TextRow = tuple[Hashable, ...]


def check_distinct(
    rows: Sequence[TextRow],
    kind: Kind,
    method: type[Method],
    batch_size: int,
    *,
    what: str = "text",
    views_are_equal: bool = False,
) -> None:
    """Refuse rows that a method cannot distinguish, and warn if only few differ.

    Args:
        rows: some or all rows, at least one: the texts of each, or other values that are equal
            where the texts count as equal.
        kind: the kind of the rows.
        method: the method to train with.
        batch_size: rows of a batch.
        what: the name of one item of a row, in the singular, for messages.
        views_are_equal: whether two copies of a text get the same vector, because there is
            neither dropout nor augmentation.

    Raises:
        DataError: all texts are the same; most rows share a text, so that a batch has less than
            one other; hard negatives are the positives or anchors of their rows; or anchors and
            positives are the same and ``views_are_equal``.
    """
    sampled = f"{len(rows):,} rows" + (" of a sample" if len(rows) == ROWS else "")
    if len({item for row in rows for item in row}) == 1:
        raise DataError(
            f"all {sampled} have the same {what}{_named(rows[0][0])}, so there is nothing to "
            "distinguish; train on a text with different sentences"
        )
    pairs = [row for row in rows if len(row) > 1]
    if kind in ("pairs", "triplets", "labelled") and pairs:
        _check_positives(pairs, views_are_equal=views_are_equal)
    useful = _check_hard_negatives(pairs) if kind == "triplets" else 0
    # Hard negatives are something to learn from even if all anchors are the same.
    needs_others = method.Config.needs_negatives and useful <= _SOME * len(rows)
    if kind in ("texts", "pairs", "triplets"):
        _check_batches(rows, batch_size, what, sampled, needs_others=needs_others)


def _check_positives(pairs: Sequence[TextRow], *, views_are_equal: bool) -> None:
    share = sum(row[0] == row[1] for row in pairs) / len(pairs)
    if share >= _ALL and views_are_equal:
        raise DataError(
            f"in {100 * share:.0f} % of the rows anchor and positive are the same text, and "
            "without dropout their vectors are equal; use --set method.dropout=0.1, or other "
            "positives"
        )
    if share >= _MOST:
        logger.warning(
            "in %.0f %% of the rows anchor and positive are the same text, so only dropout or "
            "augmentation makes them differ; is a column named twice?",
            100 * share,
        )


def _check_hard_negatives(rows: Sequence[TextRow]) -> int:
    """Count the rows with a hard negative other than their own anchor or positive."""
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
            "in %d of %d rows every hard negative is the anchor or the positive itself and is "
            "ignored",
            useless,
            len(given),
        )
    return useful


def _check_batches(
    rows: Sequence[TextRow], batch_size: int, what: str, sampled: str, *, needs_others: bool
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
    if share < _MOST:
        return
    role = ("anchor", "positive")[place] if len(rows[0]) > 1 else what
    finding = f"{100 * share:.0f} % of {sampled} have the same {role}{_named(item)}"
    others = batch_size * (1 - share)
    if needs_others and others < 1:
        raise DataError(
            f"{finding}, so a batch of {batch_size} has less than one other; remove the "
            "repetitions with: simcse data dedupe FILE --by anchor --output OTHER-FILE, or give "
            "other text"
        )
    logger.warning(
        "%s, so a batch of %d has about %.0f others; remove the repetitions with simcse data "
        "dedupe",
        finding,
        batch_size,
        others,
    )


def _named(item: Hashable) -> str:
    """Quote a text for messages; rows of token ids are not shown."""
    if not isinstance(item, str):
        return ""
    return f" {item if len(item) <= 60 else item[:60] + '...'!r}"


def check_vocabulary(plan: RunPlan, encoder: SentenceEncoder, max_length: int) -> None:
    """Tokenize a sample of 1,024 rows and refuse text that the model does not know.

    During training, the unknown tokens of all sentences are counted as well.

    Args:
        plan: the plan of the run.
        encoder: the encoder to train.
        max_length: most tokens of a sentence in training.

    Raises:
        DataError: most tokens of the training text or of the dev set are unknown, or the rows of
            the sample have the same token ids.
    """
    allow = plan.config.data.allow_unknown
    rows = [row.texts for row in plan.corpus.rows(some(plan.corpus.sampled, SAMPLE))]
    texts = list(dict.fromkeys(text for row in rows for text in row))
    remedy = "--allow-unknown (data.allow_unknown = true)"
    check_known(encoder, texts, what="the training text", allow=allow, remedy=remedy)
    if plan.dev is not None:
        sentences = plan.dev.pairs.sentences()
        what = f"the dev set {plan.dev.name}"
        check_known(encoder, sentences, what=what, allow=allow, remedy=remedy)
    ids, cut = encoder.tokenize(texts, max_length=max_length)
    count_rows(encoder, texts, ids, cut).say(encoder.tokenizer, max_length)
    known = {text: tuple(row) for text, row in zip(texts, ids, strict=True)}
    check_distinct(
        [tuple(known[text] for text in row) for row in rows],
        plan.corpus.kind,
        plan.method,
        plan.config.training.batch_size,
        what="sequence of token ids",
        views_are_equal=plan.augment is None and not any(encoder.dropouts().values()),
    )
