"""What the tokenizer of a model makes of a training text and a dev set, before training."""

from __future__ import annotations

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import count_rows
from simcse_kit.encoder.unknown_text import SAMPLE, check_known, some
from simcse_kit.training.plan import Prepared
from simcse_kit.training.row_variety import check_distinct

__all__ = ["check_vocabulary"]


def check_vocabulary(prepared: Prepared, encoder: SentenceEncoder, max_length: int) -> None:
    """Count what is lost of a sample of 1,024 rows, and refuse text that the model does not know.

    While training, the collator counts the unknown tokens of all sentences.

    Args:
        prepared: the run.
        encoder: the encoder to train.
        max_length: tokens of a sentence in training.

    Raises:
        DataError: training text or dev set is mostly unknown, or the rows of the sample become the
            same token ids.
    """
    allow = prepared.config.data.allow_unknown
    rows = [row.texts for row in prepared.corpus.rows(some(range(len(prepared.corpus)), SAMPLE))]
    texts = list(dict.fromkeys(text for row in rows for text in row))
    remedy = "--allow-unknown (data.allow_unknown = true)"
    check_known(encoder, texts, what="the training text", allow=allow, remedy=remedy)
    if prepared.dev is not None:
        sentences = prepared.dev.pairs.sentences()
        what = f"the dev set {prepared.dev.name}"
        check_known(encoder, sentences, what=what, allow=allow, remedy=remedy)
    ids, cut = encoder.tokenize(texts, max_length=max_length)
    count_rows(encoder, texts, ids, cut).say(encoder.tokenizer, max_length)
    known = {text: tuple(row) for text, row in zip(texts, ids, strict=True)}
    check_distinct(
        [tuple(known[text] for text in row) for row in rows],
        prepared.corpus.kind,
        prepared.method,
        prepared.config.training.batch_size,
        what="sequence of token ids",
        views_are_equal=prepared.augment is None and not any(encoder.dropouts().values()),
    )
