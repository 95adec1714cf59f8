r"""Readers of the three kinds of STS files in SentEval's data folder.

TRAP: Only ``\n`` ends a line (tweets contain U+0085 and U+2028), quotes are plain text (so a CSV
reader fails), ``sts-*.csv`` is tab separated, ``SICK_test_annotated.txt`` has CRLF line ends, and
an empty gold line (STS15, STS16) is an unscored pair that still counts as a line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.tasks import files
from simcse_kit.evaluation.tasks.files import PairCollector, parse_score, read_lines

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


def read_semeval(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """Read ``STS.input.SUBSET.txt`` and ``STS.gs.SUBSET.txt``, without the unscored pairs."""
    inputs, golds = folder / f"STS.input.{subset}.txt", folder / f"STS.gs.{subset}.txt"
    lines, scores = read_lines(inputs), read_lines(golds)
    if len(lines) != len(scores):
        raise DataError(
            f"{len(scores)} lines but {inputs.name} has {len(lines)}; line i of one scores line "
            "i of the other; fetch the data again",
            file=golds,
        )
    pairs = PairCollector(inputs, "fetch the data again")
    for line, (row, score) in enumerate(zip(lines, scores, strict=True), start=1):
        if score.strip():
            first, second = _fields(row, 2, inputs, line)[:2]
            parse_score(score.strip(), scale, golds, line)
            pairs.add(line, score, first, second)
    return pairs.done(subset, scale)


def read_benchmark(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """Read ``sts-SUBSET.csv``: tab separated genre, file, year, id, score, sentence, sentence."""
    pairs = PairCollector(folder / f"sts-{subset}.csv", "fetch the data again")
    for line, row in enumerate(read_lines(pairs.file), start=1):
        fields = _fields(row, 7, pairs.file, line)
        pairs.add(line, fields[4], fields[5], fields[6], scale)
    return pairs.done(subset, scale)


def read_sick(folder: Path, subset: str, scale: tuple[float, float]) -> PairSet:
    """Read ``SICK_SUBSET.txt``: a header, then id, sentence, sentence, relatedness, judgment."""
    name = f"SICK_{'test_annotated' if subset == 'test' else subset}.txt"
    pairs = PairCollector(folder / name, "fetch the data again")
    for line, row in enumerate(read_lines(pairs.file)[1:], start=2):
        fields = _fields(row, 4, pairs.file, line)
        pairs.add(line, fields[3], fields[1], fields[2], scale)
    return pairs.done(subset, scale)


def _fields(row: str, least: int, file: Path, line: int) -> list[str]:
    fields = row.split("\t")
    if len(fields) < least:
        raise DataError(
            f"{len(fields)} tab-separated fields; expected at least {least}", file=file, line=line
        )
    return fields


READERS: dict[str, Callable[[Path, str, tuple[float, float]], PairSet]] = {
    "semeval": read_semeval,
    "benchmark": read_benchmark,
    "sick": read_sick,
}
"""Reader by kind of file: ``reader(folder, subset, scale) -> PairSet``."""
