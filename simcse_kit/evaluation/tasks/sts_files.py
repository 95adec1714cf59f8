r"""Readers of the three kinds of STS files in SentEval's data folder.

TRAP: Only ``\n`` ends a line (tweets contain U+0085 and U+2028), quotes are plain text (so a CSV
reader fails), ``sts-*.csv`` is tab separated, ``SICK_test_annotated.txt`` has CRLF line ends, and
an empty gold line (STS15, STS16) is an unscored pair that still counts as a line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.tasks import files
from simcse_kit.evaluation.tasks.files import parse_score, read_lines, tidy

__all__ = ["READERS", "SENTEVAL_REMEDY", "locate"]

SENTEVAL_REMEDY = (
    "pass --data DIR with the SentEval layout (STS/STS12-en-test, ..., STS/STSBenchmark, SICK), as "
    "unpacked from https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/"
    "senteval.tar"
)

_PREFIXES = ("", "downstream", "data", "data/downstream", "SentEval/data/downstream")


def locate(data: Path, folder: str, groups: tuple[str, ...] = ("STS", "")) -> Path:
    """Find ``folder`` under ``data``, in any layout of SentEval copies.

    Args:
        data: Folder named by the user.
        folder: Folder to find, such as ``STS12-en-test``.
        groups: Folders that may lie between the two, in order of preference.

    Raises:
        DataError: The folder is in none of the places, which the message names.
    """
    parents = [Path(prefix, group).as_posix() for group in groups for prefix in _PREFIXES]
    return files.locate(data, folder, parents, SENTEVAL_REMEDY)


class _Pairs:
    """Scored pairs of one file, as collected so far."""

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
    """Read ``STS.input.SUBSET.txt`` and ``STS.gs.SUBSET.txt``, without the unscored pairs."""
    inputs, golds = folder / f"STS.input.{subset}.txt", folder / f"STS.gs.{subset}.txt"
    pairs, scores = read_lines(inputs), read_lines(golds)
    if len(pairs) != len(scores):
        raise DataError(
            f"{len(scores)} lines but {inputs.name} has {len(pairs)}; line i of one scores line "
            "i of the other; fetch the data again",
            file=golds,
        )
    rows = _Pairs(subset, scale)
    for line, (pair, score) in enumerate(zip(pairs, scores, strict=True), start=1):
        if score.strip():
            first, second = _fields(pair, 2, inputs, line)[:2]
            parse_score(score.strip(), scale, golds, line)
            rows.add(score, first, second, inputs, line)
    return rows.done()


def read_benchmark(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """Read ``sts-SUBSET.csv``: tab separated genre, file, year, id, score, sentence, sentence."""
    path = folder / f"sts-{subset}.csv"
    rows = _Pairs(subset, scale)
    for line, row in enumerate(read_lines(path), start=1):
        fields = _fields(row, 7, path, line)
        rows.add(fields[4], fields[5], fields[6], path, line)
    return rows.done()


def read_sick(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """Read ``SICK_SUBSET.txt``: a header, then id, sentence, sentence, relatedness, judgment."""
    path = folder / f"SICK_{'test_annotated' if subset == 'test' else subset}.txt"
    rows = _Pairs(subset, scale)
    for line, row in enumerate(read_lines(path)[1:], start=2):
        fields = _fields(row, 4, path, line)
        rows.add(fields[3], fields[1], fields[2], path, line)
    return rows.done()


READERS: dict[str, Callable[[Path, str, tuple[float, float]], PairSet]] = {
    "semeval": read_semeval,
    "benchmark": read_benchmark,
    "sick": read_sick,
}
"""Reader by kind of file: ``reader(folder, subset, scale) -> PairSet``."""
