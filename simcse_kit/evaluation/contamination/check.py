"""Training text against evaluation sets: what it holds of them, and the file without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from simcse_kit.data.bad_rows import OnBadRow, ReadReport
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.contamination.index import KINDS, Hit, LeakIndex
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.utils.tables import Table, render_text

__all__ = ["LeakReport", "SetLeak", "check_leaks", "check_pairs"]

_COLUMNS = ("file", "line", "text", "set", "sentence", "kind", "similarity")


@dataclass(frozen=True)
class SetLeak:
    """What training text holds of one evaluation set.

    Attributes:
        sentences: distinct ones of the set.
        matched: of those, how many were found, by the strictest kind of match.
        pairs: graded pairs of the set.
        touched: pairs with a sentence that was found.
        whole: pairs whose sentences were found both.
        in_one_row: pairs whose sentences were found in one and the same training row.
    """

    sentences: int
    matched: dict[str, int]
    pairs: int
    touched: int
    whole: int
    in_one_row: int


@dataclass
class LeakReport:
    """What a leak check found.

    Attributes:
        train: the training files.
        rows: good rows that were read.
        matched_rows: rows with a text that matches.
        sets: evaluation set -> what was found of it.
        threshold: of near matches; None where neither these nor contained sentences were looked
            for.
        bad_rows: why rows were skipped -> how many.
        found: numbers of the evaluation sentences that were found, by evaluation set.
        removed: rows left out of the cleaned file; None where none was asked for.
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
        """Plain dicts and numbers, without the sentences."""
        document = asdict(self)
        del document["found"]
        return document

    def table(self) -> str:
        """The sets as lines for a terminal."""
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


class _Tally:
    """Counts what is found."""

    def __init__(self, sets: Mapping[str, Sequence[PairSet]], index: LeakIndex):
        self._index = index
        self._sets = sets
        self._kind: dict[int, str] = {}
        # Pairs of numbers that one training row holds both of.
        self._together: set[tuple[int, int]] = set()
        self._wanted = {
            self._pair(one, two)
            for parts in sets.values()
            for part in parts
            for one, two in zip(part.sentences1, part.sentences2, strict=True)
        }
        self._number = {text: number for number, text in enumerate(index.sentences)}
        self.matched_rows = 0

    def _pair(self, one: str, two: str) -> tuple[str, str]:
        return (one, two) if one <= two else (two, one)

    def add(self, hits: Sequence[Sequence[Hit]]) -> None:
        """Count a training row, whose texts each have their hits."""
        if not any(hits):
            return
        self.matched_rows += 1
        for hit in (hit for each in hits for hit in each):
            known = self._kind.get(hit.sentence)
            if known is None or KINDS.index(hit.kind) < KINDS.index(known):
                self._kind[hit.sentence] = hit.kind
        for at, first in enumerate(hits):
            for second in hits[at + 1 :]:
                self._together.update(
                    (min(a.sentence, b.sentence), max(a.sentence, b.sentence))
                    for a in first
                    for b in second
                )

    def leaks(self) -> dict[str, SetLeak]:
        return {name: self._leak(name, parts) for name, parts in self._sets.items()}

    def found(self) -> dict[str, list[str]]:
        return {
            name: [self._index.sentences[n] for n in sorted(numbers) if n in self._kind]
            for name, numbers in self._index.sets.items()
        }

    def _leak(self, name: str, parts: Sequence[PairSet]) -> SetLeak:
        numbers = self._index.sets[name]
        kinds = Counter(self._kind[number] for number in numbers if number in self._kind)
        pairs = [
            (self._number[one], self._number[two])
            for part in parts
            for one, two in zip(part.sentences1, part.sentences2, strict=True)
        ]
        return SetLeak(
            sentences=len(numbers),
            matched={kind: kinds[kind] for kind in KINDS},
            pairs=len(pairs),
            touched=sum(one in self._kind or two in self._kind for one, two in pairs),
            whole=sum(one in self._kind and two in self._kind for one, two in pairs),
            in_one_row=sum((min(pair), max(pair)) in self._together for pair in pairs),
        )


def check_leaks(
    files: Sequence[str | Path],
    sets: Mapping[str, Sequence[PairSet]],
    *,
    threshold: float | None = 0.8,
    columns: Sequence[str] | None = None,
    format: str | None = None,
    on_bad_row: OnBadRow = "error",
    matches: str | Path | None = None,
    clean: str | Path | None = None,
    overwrite: bool = False,
) -> LeakReport:
    """Look for the sentences of evaluation sets in training files, which are read once, row by row.

    Args:
        files: any that training reads; every text column is looked at.
        sets: evaluation set -> its graded pairs, as
            :func:`~simcse_kit.evaluation.evaluate.load_tasks` gives them.
        threshold: least similarity of near matches, see :class:`LeakIndex`; None: neither near
            matches nor contained sentences.
        columns: those of the texts, by name or by position; recognised if None.
        format: what the files are, whatever their suffix.
        on_bad_row: raise at the first bad row, or skip bad rows and count them.
        matches: a .tsv, .csv or .jsonl file to write, a row for each match, with file and line.
        clean: a file to write: the one training file without the rows that match.
        overwrite: existing files may be replaced.

    Raises:
        ConfigError: an argument is wrong, or ``clean`` is asked for of several files.
        DataError: a file cannot be read.
    """
    if clean is not None and len(files) != 1:
        raise ConfigError(f"a cleaned file can be made of one training file, not of {len(files)}")
    found_in = None
    if matches is not None:
        found_in = check_output(matches, overwrite=overwrite, columns=len(_COLUMNS))
    if clean is not None:
        check_output(clean, overwrite=overwrite)
    options = ReadOptions(columns=columns, format=cast("Any", format), on_bad_row=on_bad_row)
    index = LeakIndex(_texts(sets), threshold)
    tally = _Tally(sets, index)
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
            for line, record, texts in records.with_texts(chosen):
                rows += 1
                hits = [index.find(text) for text in texts]
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
    """Graded pairs in the place of training text, such as STS-B dev, by which checkpoints are
    chosen, against the tests.

    Args:
        name: what the pairs are called.
        pairs: their subsets.
        sets: as for :func:`check_leaks`.
        threshold: as for :func:`check_leaks`.
    """
    index = LeakIndex(_texts(sets), threshold)
    tally = _Tally(sets, index)
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
