"""Reading of evaluation files: folders of SentEval, lines, columns, sentences and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.records import Records
from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet

__all__ = [
    "OPTIONS",
    "PairCollector",
    "locate",
    "parse_score",
    "read_columns",
    "read_lines",
    "tidy",
]

OPTIONS = ReadOptions(skip_blank=True, max_line_bytes=100_000_000)
"""Options of task files, whose documents may be longer than a line of training text."""


def locate(data: Path, folder: str, parents: Sequence[str], remedy: str) -> Path:
    """Find ``folder`` under ``data`` in the places where copies of SentEval keep it.

    Args:
        data: Folder named by the user.
        folder: Folder to find, such as ``STS12-en-test``.
        parents: Folders under ``data`` that may hold it, in order of preference.
        remedy: Advice for the error message.

    Raises:
        DataError: The folder is in none of the places, which the message names.
    """
    if not data.is_dir():
        raise DataError(f"data folder {str(data)!r} does not exist; {remedy}")
    places = [Path(parent, folder) for parent in parents]
    for place in places:
        if (data / place).is_dir():
            return data / place
    tried = ", ".join(place.as_posix() for place in places)
    raise DataError(f"no folder {folder!r} in {str(data)!r} (tried {tried}); {remedy}")


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    r"""Read the lines of a published file (BOM allowed) without their ``\n`` or ``\r\n``.

    Only ``\n`` ends a line, since tweets contain U+0085 and U+2028; blank lines count.

    Raises:
        DataError: The file is missing, or a line is not in the encoding.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}); the data folder is incomplete, fetch it again",
            file=path,
        ) from None
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            "is not UTF-8; fetch the file again, or convert it to UTF-8", file=path, line=line
        ) from None
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_columns(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of a task file as texts by column, such as a .tsv or .jsonl file.

    Args:
        path: The file.
        required: Columns that must be filled in every row.

    Yields:
        The line, and the text of each column with its whitespace collapsed.

    Raises:
        DataError: The file cannot be read, or a column is missing or blank.
    """
    records = Records(path, OPTIONS)
    if records.is_table and not set(required) <= set(records.columns):
        raise DataError(
            f"the header names {', '.join(records.columns)}; it must name {', '.join(required)}",
            file=path,
            line=records.line,
        )
    for line, record in records:
        texts = {key: tidy(str(value)) for key, value in record.items()}
        for column in required:
            if not texts.get(column):
                raise DataError(
                    f"column {column!r} is missing or blank; every row needs {', '.join(required)}",
                    file=path,
                    line=line,
                )
        yield line, texts


@dataclass
class PairCollector:
    """Graded pairs of one file, as collected so far.

    Args:
        file: The file.
        remedy: Advice about a blank sentence.
    """

    file: Path
    remedy: str
    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    gold: list[float] = field(default_factory=list)

    def add(
        self,
        line: int,
        score: str,
        first: str,
        second: str,
        scale: tuple[float, float] | None = None,
    ) -> bool:
        """Add a pair, and tell whether it has a score; a pair without one is not added.

        Raises:
            DataError: A sentence is blank, or the score is bad or lies outside ``scale``.
        """
        first, second, score = tidy(first), tidy(second), score.strip()
        if not first or not second:
            which = "sentence1" if not first else "sentence2"
            raise DataError(f"{which} is blank; {self.remedy}", file=self.file, line=line)
        if score:
            self.gold.append(parse_score(score, scale, self.file, line))
            self.first.append(first)
            self.second.append(second)
        return bool(score)

    def done(self, name: str, scale: tuple[float, float]) -> PairSet:
        """Give the pairs as a set."""
        gold = np.array(self.gold, dtype=np.float64)
        return PairSet(name, self.first, self.second, gold, scale)


def tidy(sentence: str) -> str:
    """Join the words of a sentence by single spaces, as the published protocol does."""
    return " ".join(sentence.split())


def parse_score(text: str, scale: tuple[float, float] | None, file: Path, line: int) -> float:
    """Parse a gold score.

    Raises:
        DataError: The text is not a finite number, or lies outside ``scale``.
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
