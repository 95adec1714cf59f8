"""Readers for the three kinds of file in SentEval's data folder, and the search for that folder.

Traps that these readers are for: only ``\\n`` ends a line (tweets hold U+0085 and U+2028), quotes
are plain text (never a CSV reader), ``sts-*.csv`` is tab separated, ``SICK_test_annotated.txt``
has CRLF line ends, and an empty gold line (STS15, STS16) is an unscored pair that still counts as
a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet

__all__ = ["READERS", "SENTEVAL_REMEDY", "locate", "parse_score", "read_lines", "tidy"]

SENTEVAL_REMEDY = (
    "pass --data DIR with the SentEval layout (STS/STS12-en-test, ..., STS/STSBenchmark, SICK), as "
    "unpacked from https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/"
    "senteval.tar"
)

_PREFIXES = ("", "downstream", "data", "data/downstream", "SentEval/data/downstream")


def locate(data: Path, folder: str, groups: tuple[str, ...] = ("STS", "")) -> Path:
    """Find ``folder`` under ``data``, in any form that SentEval copies come in.

    Args:
        data: the folder the user named.
        folder: such as ``STS12-en-test``.
        groups: folders that may stand between, in order of preference.

    Raises:
        DataError: it is in none of the places; the message names them.
    """
    if not data.is_dir():
        raise DataError(f"data folder {str(data)!r} does not exist; {SENTEVAL_REMEDY}")
    places = [Path(prefix, group, folder) for group in groups for prefix in _PREFIXES]
    for place in places:
        if (data / place).is_dir():
            return data / place
    tried = ", ".join(place.as_posix() for place in places)
    raise DataError(f"no folder {folder!r} in {str(data)!r} (tried {tried}); {SENTEVAL_REMEDY}")


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file (BOM allowed) without their ``\n`` or ``\r\n``.

    Raises:
        DataError: the file is absent, or a line is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}); the data folder is incomplete", file=path
        ) from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError("is not UTF-8; convert the file to UTF-8", file=path, line=line) from None
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def tidy(sentence: str) -> str:
    """Join the words of a sentence by single blanks, as the published protocol does."""
    return " ".join(sentence.split())


def parse_score(text: str, scale: tuple[float, float] | None, file: Path, line: int) -> float:
    """A gold score as a number.

    Raises:
        DataError: not a finite number, or outside ``scale``.
    """
    try:
        score = float("nan" if "_" in text else text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"score {text!r} is not a number", file=file, line=line)
    if scale is not None and not scale[0] <= score <= scale[1]:
        raise DataError(
            f"score {text!r} is outside {scale[0]:g} to {scale[1]:g}", file=file, line=line
        )
    return score


class _Rows:
    """Collects the scored pairs of one file."""

    def __init__(self, name: str, scale: tuple[float, float]):
        self.name, self.scale = name, scale
        self.first: list[str] = []
        self.second: list[str] = []
        self.gold: list[float] = []

    def add(self, score: str, first: str, second: str, file: Path, line: int) -> None:
        first, second = tidy(first), tidy(second)
        if not first or not second:
            raise DataError("a scored pair has a blank sentence", file=file, line=line)
        self.gold.append(parse_score(score.strip(), self.scale, file, line))
        self.first.append(first)
        self.second.append(second)

    def done(self) -> PairSet:
        gold = np.array(self.gold, dtype=np.float64)
        return PairSet(self.name, self.first, self.second, gold, self.scale)


def _fields(row: str, least: int, file: Path, line: int) -> list[str]:
    fields = row.split("\t")
    if len(fields) < least:
        raise DataError(
            f"{len(fields)} tab-separated fields; expected at least {least}", file=file, line=line
        )
    return fields


def read_semeval(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """``STS.input.SUBSET.txt`` beside ``STS.gs.SUBSET.txt``; pairs without a score are dropped."""
    inputs, golds = folder / f"STS.input.{subset}.txt", folder / f"STS.gs.{subset}.txt"
    pairs, scores = read_lines(inputs), read_lines(golds)
    if len(pairs) != len(scores):
        raise DataError(
            f"{len(scores)} lines but {inputs.name} has {len(pairs)}; line i of one must score "
            "line i of the other, fetch the data again",
            file=golds,
        )
    rows = _Rows(subset, scale)
    for line, (pair, score) in enumerate(zip(pairs, scores, strict=True), start=1):
        if score.strip():
            first, second = _fields(pair, 2, inputs, line)[:2]
            parse_score(score.strip(), scale, golds, line)
            rows.add(score, first, second, inputs, line)
    return rows.done()


def read_benchmark(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """``sts-SUBSET.csv``: tab separated genre, file, year, id, score, sentence, sentence, ..."""
    path = folder / f"sts-{subset}.csv"
    rows = _Rows(subset, scale)
    for line, row in enumerate(read_lines(path), start=1):
        fields = _fields(row, 7, path, line)
        rows.add(fields[4], fields[5], fields[6], path, line)
    return rows.done()


def read_sick(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """``SICK_SUBSET.txt``: a header line, then id, sentence, sentence, relatedness, judgment."""
    path = folder / f"SICK_{'test_annotated' if subset == 'test' else subset}.txt"
    rows = _Rows(subset, scale)
    for line, row in enumerate(read_lines(path)[1:], start=2):
        fields = _fields(row, 4, path, line)
        rows.add(fields[3], fields[1], fields[2], path, line)
    return rows.done()


READERS: dict[str, Callable[[Path, str, tuple[float, float]], PairSet]] = {
    "semeval": read_semeval,
    "benchmark": read_benchmark,
    "sick": read_sick,
}
"""Reader by the kind of file: ``reader(folder, subset, scale) -> PairSet``."""
