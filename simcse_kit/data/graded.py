"""Graded pairs: the columns of two texts and a score, and the scale of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "BENCHMARK_COLUMNS",
    "BENCHMARK_SCORE",
    "SCORE_NAMES",
    "assumed_scale",
    "graded_columns",
    "graded_columns_among",
    "graded_remedy",
    "is_benchmark",
    "is_number",
]

SCORE_NAMES = frozenset(
    "score scores label labels grade gold rating similarity similarity_score sim relatedness "
    "relatedness_score".split()
)
"""Names of a column of scores, in lower case."""

BENCHMARK_COLUMNS, BENCHMARK_SCORE = ("5", "6"), "4"
"""Positions of the sentences and of the score in the files of STSBenchmark."""

_PAIRS = (
    ("sentence1", "sentence2"),
    ("sent0", "sent1"),
    ("anchor", "positive"),
    ("sentence_A", "sentence_B"),
    ("text1", "text2"),
)
# Columns of published graded data that say where a pair comes from. A column `split` is not one of
# them, because it would put the test rows into the training data.
_ORIGIN = frozenset(
    "id idx index sid old_index pair_id genre file filename dataset year source source1 source2 "
    "entailment_label entailment_judgment".split()
) | {""}
# The scales in use: that of cosines, shares, STS-B, SICK, and points out of ten or a hundred.
_SCALES = ((-1.0, 1.0), (0.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))
_PEEK = 1 << 20


def graded_columns(header: Sequence[str], score: str | None = None) -> tuple[str, str, str] | None:
    """Find the columns of two texts and of the score in a header.

    Every other column must be one of the usual columns of origin, such as an id or a genre.

    Args:
        header: Names of the columns.
        score: Column of the score; None looks for the only one of :data:`SCORE_NAMES`.

    Returns:
        Both texts and the score, or None if the header is not that of graded pairs.

    Examples:
        >>> graded_columns(["id", "sentence1", "sentence2", "Score"])
        ('sentence1', 'sentence2', 'Score')
    """
    names = set(header)
    known = {name for name in header if name.lower() in SCORE_NAMES or name.lower() in _ORIGIN}
    scores = [name for name in header if name.lower() in SCORE_NAMES] if score is None else [score]
    for pair in _PAIRS:
        if len(scores) == 1 and names - known - {*scores} == {*pair} and scores[0] in names:
            return (*pair, scores[0])
    return None


def graded_columns_among(header: Sequence[str]) -> tuple[str, str, str] | None:
    """Find the columns of two texts and of the score, in any case and among any other columns.

    Evaluation allows more than :func:`graded_columns`, because it cannot mistake the columns of
    other training data for graded pairs.

    Returns:
        Both texts and the score; None if a column is missing, or if several columns could be the
        score and none of them is called ``score``.

    Examples:
        >>> graded_columns_among(["pair", "Sentence1", "Sentence2", "comment", "label"])
        ('Sentence1', 'Sentence2', 'label')
    """
    names = {name.lower(): name for name in reversed(header)}
    scores = ["score"] if "score" in names else [name for name in names if name in SCORE_NAMES]
    for pair in _PAIRS:
        first, second = (name.lower() for name in pair)
        if len(scores) == 1 and {first, second} <= names.keys():
            return names[first], names[second], names[scores[0]]
    return None


def graded_remedy(label: str, texts: Sequence[str] | None) -> str:
    """Describe how to train on graded pairs, and how to choose the checkpoint by them.

    Args:
        label: Column of the scores.
        texts: Columns of the texts, if they must be named; else None.
    """
    columns = "" if texts is None else f"--columns {','.join(texts)} "
    return (
        f"to train on pairs with scores, give {columns}--label {label} --method graded; to choose "
        "the checkpoint by them, train on another file and give this one with --dev, with columns "
        "called sentence1, sentence2, score"
    )


def assumed_scale(scores: Sequence[float]) -> tuple[float, float]:
    """Guess the lowest and highest score that a pair could have.

    It is the smallest of the usual scales that holds all scores, if the highest of them is in its
    upper fifth; otherwise the range of the scores.

    Args:
        scores: One or more finite scores.

    Examples:
        >>> assumed_scale([0.2, 3.8, 4.6]), assumed_scale([1.0, 4.9]), assumed_scale([0, 2, 3])
        ((0.0, 5.0), (1.0, 5.0), (0, 3))
    """
    low, high = min(scores), max(scores)
    for bottom, top in _SCALES:
        enough = high > top - (top - bottom) / 5 and (bottom >= 0 or low < 0)
        if bottom <= low and high <= top and enough:
            return bottom, top
    return low, high


def is_benchmark(path: Path) -> bool:
    """Check whether the first line looks like one of STSBenchmark's ``sts-*.csv``.

    They are separated by tabs, have no header and, in this order, genre, file, year, id, score,
    two sentences and sometimes more.
    """
    try:
        with path.open("rb") as stream:
            head = stream.readline(_PEEK).decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return False  # reading the rows gives the message
    fields = head.rstrip("\r\n").split("\t")
    return len(fields) >= 7 and "," not in fields[4] and is_number(fields[4])


def is_number(text: str) -> bool:
    """Check whether a text is nothing but a number such as 3, 0.5, 1,5 or nan."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
