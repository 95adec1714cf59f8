r"""Readers of SentEval's seven transfer tasks, with their published counts.

As in SentEval, single-sentence files except SST are read as latin-1, and only ``\n`` ends a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simcse_kit.errors import DataError
from simcse_kit.evaluation.tasks.files import locate, read_lines, tidy

__all__ = ["REMEDY", "SPECS", "LabelledTexts", "Spec"]

_PARENTS = ("", "transfer", "downstream", "data", "data/downstream", "SentEval/data/downstream")
_TREC = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
REMEDY = "pass --data DIR with SentEval's data/downstream (MR, CR, SUBJ, MPQA, SST, TREC, MRPC)"


@dataclass(frozen=True)
class LabelledTexts:
    """One split: n rows of one or two texts, and n class numbers."""

    texts: list[tuple[str, ...]]
    labels: list[int]

    def ordered(self) -> LabelledTexts:
        """Sort by number of tokens, then label, as SentEval does, since the folds depend on it.

        A blank line (CR has one) is a row without tokens; encoders receive ``.`` instead, as in
        SentEval's examples.
        """

        def key(row: tuple[tuple[str, ...], int]) -> tuple[int, ...]:
            return (*(len(text.split()) for text in row[0]), row[1])

        rows = sorted(zip(self.texts, self.labels, strict=True), key=key)
        texts = [tuple(text or "." for text in texts) for texts, _ in rows]
        return LabelledTexts(texts, [label for _, label in rows])


def _tidy(text: str, path: Path, line: int) -> str:
    text = tidy(text)
    if not text:
        raise DataError("has no text; fetch the file again", file=path, line=line)
    return text


def _label(text: str, allowed: tuple[str, ...], path: Path, line: int) -> int:
    if text not in allowed:
        raise DataError(
            f"label {text!r} is not one of {', '.join(allowed)}; fetch the file again",
            file=path,
            line=line,
        )
    return allowed.index(text)


def _two_files(folder: Path, names: tuple[str, ...]) -> LabelledTexts:
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    for name, label in zip(names, (1, 0), strict=True):
        path = folder / name
        for row in read_lines(path, "latin-1"):
            texts.append((tidy(row),))
            labels.append(label)
    return LabelledTexts(texts, labels)


def _sst(folder: Path, names: tuple[str, ...]) -> LabelledTexts:
    path = folder / names[0]
    rows = LabelledTexts([], [])
    for line, row in enumerate(read_lines(path, "utf-8"), start=1):
        text, tab, label = row.partition("\t")
        if not tab:
            raise DataError("has no tab; expected sentence<TAB>0 or 1", file=path, line=line)
        rows.texts.append((_tidy(text, path, line),))
        rows.labels.append(_label(label.strip(), ("0", "1"), path, line))
    return rows


def _trec(folder: Path, names: tuple[str, ...]) -> LabelledTexts:
    path = folder / names[0]
    rows = LabelledTexts([], [])
    for line, row in enumerate(read_lines(path, "latin-1"), start=1):
        label, _, rest = row.strip().partition(":")
        rows.labels.append(_label(label, _TREC, path, line))
        rows.texts.append((_tidy(rest.partition(" ")[2], path, line),))
    return rows


def _mrpc(folder: Path, names: tuple[str, ...]) -> LabelledTexts:
    path = folder / names[0]
    rows = LabelledTexts([], [])
    for line, row in enumerate(read_lines(path, "utf-8")[1:], start=2):
        fields = row.strip().split("\t")
        if len(fields) != 5:
            raise DataError(f"{len(fields)} tab-separated fields; expected 5", file=path, line=line)
        rows.texts.append((_tidy(fields[3], path, line), _tidy(fields[4], path, line)))
        rows.labels.append(_label(fields[0], ("0", "1"), path, line))
    return rows


@dataclass(frozen=True)
class Spec:
    """A transfer task: its files, their reader, and the number of rows.

    Args:
        name: Name of the task.
        folder: Folder of the task in SentEval's data.
        read: Reader of the files of a split.
        splits: Files by split.
        expected: Published number of rows by split.
        grid: Exponents of 2 that are tried for C.
    """

    name: str
    folder: str
    read: Callable[[Path, tuple[str, ...]], LabelledTexts]
    splits: dict[str, tuple[str, ...]]
    expected: dict[str, int]
    grid: range

    def load(self, data: Path) -> dict[str, LabelledTexts]:
        """Load all splits in SentEval's order.

        Raises:
            DataError: A folder or file is missing, a line is wrong, or the number of rows is.
        """
        folder = locate(data, self.folder, _PARENTS, REMEDY)
        found = {split: self.read(folder, names) for split, names in self.splits.items()}
        for split, rows in found.items():
            if len(rows.labels) != self.expected[split]:
                raise DataError(
                    f"{self.name}: {len(rows.labels)} rows ({split}) in {folder}, but "
                    f"{self.expected[split]} are published; fetch the data again, because "
                    "scores on another set cannot be compared"
                )
        return {split: rows.ordered() for split, rows in found.items()}


def _nested(name: str, files: tuple[str, str], expected: int) -> Spec:
    return Spec(name, name, _two_files, {"all": files}, {"all": expected}, range(-2, 4))


SPECS: dict[str, Spec] = {
    "MR": _nested("MR", ("rt-polarity.pos", "rt-polarity.neg"), 10662),
    "CR": _nested("CR", ("custrev.pos", "custrev.neg"), 3775),
    "SUBJ": _nested("SUBJ", ("subj.objective", "subj.subjective"), 10000),
    "MPQA": _nested("MPQA", ("mpqa.pos", "mpqa.neg"), 10606),
    "SST2": Spec(
        "SST2",
        "SST/binary",
        _sst,
        {split: (f"sentiment-{split}",) for split in ("train", "dev", "test")},
        {"train": 67349, "dev": 872, "test": 1821},
        range(-2, 4),
    ),
    "TREC": Spec(
        "TREC",
        "TREC",
        _trec,
        {"train": ("train_5500.label",), "test": ("TREC_10.label",)},
        {"train": 5452, "test": 500},
        range(-1, 6),
    ),
    "MRPC": Spec(
        "MRPC",
        "MRPC",
        _mrpc,
        {split: (f"msr_paraphrase_{split}.txt",) for split in ("train", "test")},
        {"train": 4076, "test": 1725},
        range(-1, 6),
    ),
}
"""The seven tasks in the order of the papers (arXiv 1803.05449; 2104.08821, appendix E)."""
