"""Readers for SentEval's seven transfer tasks, and their published counts.

Single-sentence files but SST are read as latin-1, as SentEval does; only ``\\n`` ends a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simcse_kit.errors import DataError

__all__ = ["SPECS", "Rows", "Spec", "locate_transfer"]

_PREFIXES = ("", "transfer", "downstream", "data", "data/downstream", "SentEval/data/downstream")
_TREC = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
REMEDY = "pass --data DIR with SentEval's data/downstream (MR, CR, SUBJ, MPQA, SST, TREC, MRPC)"


@dataclass(frozen=True)
class Rows:
    """One split: n texts (one or two a row) and n class numbers."""

    texts: list[tuple[str, ...]]
    labels: list[int]

    def ordered(self) -> Rows:
        """In SentEval's order, by number of tokens then label: the folds depend on it.

        A blank line (CR has one) is a row of no tokens; encoders are given ``.`` in its place, as
        SentEval's own examples do.
        """

        def key(row: tuple[tuple[str, ...], int]) -> tuple[int, ...]:
            return (*(len(text.split()) for text in row[0]), row[1])

        rows = sorted(zip(self.texts, self.labels, strict=True), key=key)
        texts = [tuple(text or "." for text in texts) for texts, _ in rows]
        return Rows(texts, [label for _, label in rows])


def locate_transfer(data: Path, folder: str) -> Path:
    """Find the folder of a task, such as ``SST/binary``, where SentEval copies keep it.

    Raises:
        DataError: it is in none of the places; the message names them.
    """
    if not data.is_dir():
        raise DataError(f"data folder {str(data)!r} does not exist; {REMEDY}")
    for prefix in _PREFIXES:
        if (data / prefix / folder).is_dir():
            return data / prefix / folder
    tried = ", ".join(Path(prefix, folder).as_posix() for prefix in _PREFIXES)
    raise DataError(f"no folder {folder!r} in {str(data)!r} (tried {tried}); {REMEDY}")


def _lines(path: Path, encoding: str) -> list[str]:
    try:
        text = path.read_bytes().decode(encoding)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}); {REMEDY}", file=path) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError("is not UTF-8; fetch the file again", file=path, line=line) from None
    lines = text.removeprefix("\ufeff").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _tidy(text: str, path: Path, line: int) -> str:
    text = " ".join(text.split())
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


def _two_files(folder: Path, names: tuple[str, ...]) -> Rows:
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    for name, label in zip(names, (1, 0), strict=True):
        path = folder / name
        for row in _lines(path, "latin-1"):
            texts.append((" ".join(row.split()),))
            labels.append(label)
    return Rows(texts, labels)


def _sst(folder: Path, names: tuple[str, ...]) -> Rows:
    path = folder / names[0]
    rows = Rows([], [])
    for line, row in enumerate(_lines(path, "utf-8"), start=1):
        text, tab, label = row.partition("\t")
        if not tab:
            raise DataError("has no tab; expected sentence<TAB>0 or 1", file=path, line=line)
        rows.texts.append((_tidy(text, path, line),))
        rows.labels.append(_label(label.strip(), ("0", "1"), path, line))
    return rows


def _trec(folder: Path, names: tuple[str, ...]) -> Rows:
    path = folder / names[0]
    rows = Rows([], [])
    for line, row in enumerate(_lines(path, "latin-1"), start=1):
        label, _, rest = row.strip().partition(":")
        rows.labels.append(_label(label, _TREC, path, line))
        rows.texts.append((_tidy(rest.partition(" ")[2], path, line),))
    return rows


def _mrpc(folder: Path, names: tuple[str, ...]) -> Rows:
    path = folder / names[0]
    rows = Rows([], [])
    for line, row in enumerate(_lines(path, "utf-8")[1:], start=2):
        fields = row.strip().split("\t")
        if len(fields) != 5:
            raise DataError(f"{len(fields)} tab-separated fields; expected 5", file=path, line=line)
        rows.texts.append((_tidy(fields[3], path, line), _tidy(fields[4], path, line)))
        rows.labels.append(_label(fields[0], ("0", "1"), path, line))
    return rows


@dataclass(frozen=True)
class Spec:
    """A transfer task as data: where its files are, how to read them, and how many rows.

    ``splits`` maps a split to its files and ``expected`` to its published number of rows.
    ``grid`` holds the exponents of 2 that are tried for C.
    """

    name: str
    folder: str
    read: Callable[[Path, tuple[str, ...]], Rows]
    splits: dict[str, tuple[str, ...]]
    expected: dict[str, int]
    grid: range

    def load(self, data: Path) -> dict[str, Rows]:
        """Every split in SentEval's order.

        Raises:
            DataError: a folder or file is missing, a line is wrong, or the count is.
        """
        folder = locate_transfer(data, self.folder)
        found = {split: self.read(folder, names) for split, names in self.splits.items()}
        for split, rows in found.items():
            if len(rows.labels) != self.expected[split]:
                raise DataError(
                    f"{self.name}: {len(rows.labels)} rows ({split}) in {folder}, but "
                    f"{self.expected[split]} are published; fetch the data again, scores on "
                    "another set cannot be compared"
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
