"""Search of training text for the sentences of evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_paths
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.contamination.index import KINDS, Hit, LeakIndex
from simcse_kit.evaluation.contamination.tally import SetLeak, Tally
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.utils.tables import Table, render_text

__all__ = [
    "LeakFiles",
    "LeakReport",
    "LeakSearch",
    "SetLeak",
    "check_leaks",
    "check_pairs",
    "search_files",
]

_COLUMNS = ("file", "line", "text", "set", "sentence", "kind", "similarity")


@dataclass
class LeakReport:
    """The result of a contamination check.

    Attributes:
        train: names of the training files.
        rows: number of good rows.
        matched_rows: number of rows with a text that matches.
        sets: counts by evaluation set.
        threshold: threshold of near matches; None if only equal texts were searched for.
        bad_rows: number of skipped rows by reason.
        found: evaluation sentences that were found, by evaluation set.
        removed: number of rows left out of the cleaned file; None without such a file.
    """

    train: list[str]
    rows: int
    matched_rows: int
    sets: dict[str, SetLeak]
    threshold: float | None
    bad_rows: dict[str, int] = field(default_factory=dict)
    found: dict[str, list[str]] = field(default_factory=dict, repr=False)
    removed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and numbers, without the sentences."""
        document = asdict(self)
        del document["found"]
        return document

    def table(self) -> str:
        """Format the counts as lines for a terminal."""
        heads = ["set", "sentences", *KINDS, "pairs", "touched", "both sentences", "in one row"]
        rows = [
            [
                name,
                *map(str, (leak.sentences, *(leak.matched[kind] for kind in KINDS))),
                *map(str, (leak.pairs, leak.touched, leak.whole, leak.in_one_row)),
            ]
            for name, leak in self.sets.items()
        ]
        lines = [render_text(Table.of_text(heads, rows))]
        share = 100 * self.matched_rows / max(1, self.rows)
        lines.append(f"{self.matched_rows:,} of {self.rows:,} training rows match ({share:.2f} %)")
        if self.removed is not None:
            lines.append(f"{self.removed:,} rows were left out of the cleaned file")
        lines += [f"skipped {count:,} rows: {reason}" for reason, count in self.bad_rows.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class LeakFiles:
    """Files that a search of training files writes.

    Args:
        matches: .tsv, .csv or .jsonl file for file and line of each match; None for no such file.
        clean: file for the training file without the rows that match; None for no such file.
        overwrite: replace existing files.
    """

    matches: str | Path | None = None
    clean: str | Path | None = None
    overwrite: bool = False


Row = tuple[int, dict[str, Any], tuple[str, ...]]
"""Line, record and texts of a training row."""

LeakSearch = Callable[[LeakIndex, Iterable[Row]], Iterator[tuple[Row, list[list[Hit]]]]]
"""Function that yields all rows, in order, with the hits of each text."""


def check_leaks(
    files: Sequence[str | Path],
    sets: Mapping[str, Sequence[PairSet]],
    *,
    threshold: float | None = 0.8,
    options: ReadOptions | None = None,
    matches: str | Path | None = None,
    clean: str | Path | None = None,
    overwrite: bool = False,
) -> LeakReport:
    """Search training files, row by row, for the sentences of evaluation sets.

    Args:
        files: files of any kind that training reads; all text columns are searched.
        sets: graded pairs by evaluation set, see
            :func:`~simcse_kit.evaluation.tasks.load.load_tasks`.
        threshold: smallest similarity of near matches, see :class:`LeakIndex`; None to search only
            for equal texts.
        options: columns, format and handling of bad rows; None for the defaults.
        matches: .tsv, .csv or .jsonl file to write, with file and line of each match.
        clean: file to write, the training file without the rows that match.
        overwrite: replace existing files.

    Raises:
        ConfigError: an argument is wrong, or ``clean`` is given for several files.
        DataError: a file cannot be read.
    """
    written = LeakFiles(matches, clean, overwrite)
    return search_files(files, sets, options or ReadOptions(), written, threshold=threshold)


def search_files(
    files: Sequence[str | Path],
    sets: Mapping[str, Sequence[PairSet]],
    options: ReadOptions,
    written: LeakFiles,
    *,
    threshold: float | None = 0.8,
    search: LeakSearch | None = None,
) -> LeakReport:
    """Search training files with ``search``; by default as :func:`check_leaks`."""
    matches, clean, overwrite = written.matches, written.clean, written.overwrite
    files = local_paths(files)
    if clean is not None and len(files) != 1:
        raise ConfigError(
            f"a cleaned file is made of one training file, not of {len(files)}; give one file"
        )
    found_in = None
    if matches is not None:
        found_in = check_output(matches, overwrite=overwrite, columns=len(_COLUMNS))
    if clean is not None:
        check_output(clean, overwrite=overwrite)
    index = LeakIndex(_texts(sets), threshold)
    tally = Tally(sets, index)
    report = ReadReport()
    rows = kept = 0
    with ExitStack() as stack:
        on_bytes = stack.enter_context(reading_progress(files))
        note = stack.enter_context(writing(found_in, _COLUMNS)) if found_in is not None else None
        for file in files:
            records = Records(file, options, report=report, on_bytes=on_bytes)
            chosen = records.text_columns()
            keeper = None
            if clean is not None:
                target = check_output(clean, overwrite=overwrite, columns=len(records.columns))
                keeper = stack.enter_context(
                    writing(target, records.columns, header=records.header)
                )
            found = (search or _one_by_one)(index, records.with_texts(chosen))
            for (line, record, texts), hits in found:
                rows += 1
                tally.add(hits)
                if note is not None:
                    for row in _noted(str(file), line, texts, hits, index):
                        note.write(row)
                if keeper is not None and not any(hits):
                    keeper.write(record)
                    kept += 1
    return LeakReport(
        train=[str(file) for file in files],
        rows=rows,
        matched_rows=tally.matched_rows,
        sets=tally.leaks(),
        threshold=threshold,
        bad_rows=dict(report.skipped),
        found=tally.found(),
        removed=None if clean is None else rows - kept,
    )


def check_pairs(
    name: str,
    pairs: Sequence[PairSet],
    sets: Mapping[str, Sequence[PairSet]],
    *,
    threshold: float | None = 0.8,
) -> LeakReport:
    """Search graded pairs for the sentences of evaluation sets.

    An example is STS-B dev, which checkpoints are selected by.

    Args:
        name: name of the pairs to search.
        pairs: subsets of the pairs to search.
        sets: as for :func:`check_leaks`.
        threshold: as for :func:`check_leaks`.
    """
    index = LeakIndex(_texts(sets), threshold)
    tally = Tally(sets, index)
    rows = 0
    for part in pairs:
        for one, two in zip(part.sentences1, part.sentences2, strict=True):
            rows += 1
            tally.add([index.find(one), index.find(two)])
    return LeakReport(
        train=[name],
        rows=rows,
        matched_rows=tally.matched_rows,
        sets=tally.leaks(),
        threshold=threshold,
        found=tally.found(),
    )


def _one_by_one(index: LeakIndex, rows: Iterable[Row]) -> Iterator[tuple[Row, list[list[Hit]]]]:
    for row in rows:
        yield row, [index.find(text) for text in row[2]]


def _texts(sets: Mapping[str, Sequence[PairSet]]) -> dict[str, list[str]]:
    return {
        name: [text for part in parts for text in part.sentences()] for name, parts in sets.items()
    }


def _noted(
    file: str, line: int, texts: Sequence[str], hits: Sequence[Sequence[Hit]], index: LeakIndex
) -> Iterator[dict[str, Any]]:
    for text, found in zip(texts, hits, strict=True):
        for hit in found:
            for name, numbers in index.sets.items():
                if hit.sentence in numbers:
                    values = (file, line, text, name, index.sentences[hit.sentence], hit.kind)
                    yield dict(zip(_COLUMNS, (*values, round(hit.similarity, 4)), strict=True))
