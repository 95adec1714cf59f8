"""Choice of the columns of anchor, positive and hard negatives; refusal of columns of numbers."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from simcse_kit.data.bad_rows import shorten
from simcse_kit.data.graded import SCORE_NAMES, graded_columns, graded_remedy, is_number
from simcse_kit.errors import ColumnsError, ConfigError, DataError
from simcse_kit.registry import closest

__all__ = [
    "FLAG_COLUMNS",
    "FLAG_EXTRAS",
    "are_positions",
    "check_columns",
    "check_label",
    "check_names",
    "choose_columns",
    "is_negative",
    "without_number_columns",
]

RECOGNISED = (
    "sent0[,sent1[,hard_neg...]] | text | sentence | sentence1,sentence2[,score] | "
    "anchor,positive[,negative...]"
)
_SINGLE = (("sent0",), ("text",), ("sentence",))
_PAIRS = (("sent0", "sent1"), ("sentence1", "sentence2"), ("anchor", "positive"))
_WITH_NEGATIVES = (("sent0", "sent1"), ("anchor", "positive"))
FLAG_COLUMNS = ("query", "pos", "neg")
"""Keys of FlagEmbedding's files; ``pos`` and ``neg`` are lists, and ``neg`` may be empty."""
FLAG_EXTRAS = frozenset({"id", "neg_id", "neg_scores", "pos_id", "pos_scores", "prompt", "type"})
"""Other keys of FlagEmbedding's files, which are not read."""
# Longest header in which a closest name is looked for.
_NEAR = 1000
# One or two numbers may be sentences; three or more in a column are not.
_FEWEST_NUMBERS = 3
_NEGATIVE = re.compile(r"(?:hard_neg|negative)(?:_?[0-9]+)?")
_NEGATIVE_LISTS = frozenset({"hard_negs", "negatives"})


def check_columns(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check the given columns, and give them as a tuple; None recognises the header.

    Raises:
        ConfigError: A column is empty or named twice, or names and positions are mixed.
    """
    if isinstance(columns, str):
        raise ConfigError(f"columns is the text {columns!r}; give a list such as ['0', '1']")
    if not columns:
        return None
    names = tuple(column.strip() for column in columns)
    given = ",".join(names)
    if not all(names):
        raise ConfigError(f"columns {given!r} has an empty name; give a,b,c or 0,1")
    if len(set(names)) < len(names):
        raise ConfigError(f"columns {given!r} names a column twice; name each once")
    if len({_is_position(name) for name in names}) > 1:
        raise ConfigError(
            f"columns {given!r} mixes names and positions; give names (a,b,c), or positions (0,1) "
            "for a file with no header line"
        )
    return names


def check_label(label: str | None, columns: tuple[str, ...] | None) -> str | None:
    """Check the column of the label against the text columns, and give it stripped.

    Raises:
        ConfigError: The label is empty, one of ``columns``, or a name where those are positions.
    """
    if label is None:
        return None
    name = label.strip()
    if not name:
        raise ConfigError("data.label is empty; give the name of the column, such as label")
    if columns is not None:
        given = ",".join(columns)
        if name in columns:
            raise ConfigError(f"data.label {name!r} is among the texts, --columns {given}")
        if are_positions(columns) != _is_position(name):
            raise ConfigError(
                f"data.label {name!r} and --columns {given}: give names for both, or positions"
            )
        if len(columns) != 2:
            raise ConfigError(
                f"labelled rows have two texts, but --columns {given} names {len(columns)}"
            )
    return name


def are_positions(columns: Sequence[str] | None) -> bool:
    """Check whether ``columns`` are positions from 0, so that the file has no header line."""
    return bool(columns) and all(_is_position(column) for column in columns or ())


def is_negative(name: str, *, lists: bool) -> bool:
    """Check whether a column holds hard negatives, by its name and if the format has ``lists``."""
    return bool(_NEGATIVE.fullmatch(name)) or (lists and name in _NEGATIVE_LISTS)


def check_names(
    header: Sequence[str], *, file: str | Path, line: int | None, blank: bool = False
) -> None:
    """Check that no name, or no name except the empty one, occurs twice in a header.

    Raises:
        DataError: A name occurs twice.
    """
    seen: set[str] = set()
    for name in header:
        if (name or blank) and name in seen:
            raise DataError(
                f"column {shorten(name)} occurs twice in the header; rename one",
                file=file,
                line=line,
            )
        seen.add(name)


def choose_columns(
    header: Sequence[str],
    columns: Sequence[str] | None,
    *,
    file: str | Path,
    line: int | None,
    lists: bool = False,
    label: str | None = None,
) -> tuple[str, ...]:
    """Choose the columns anchor, positive, hard negatives; or two texts and the label.

    Of graded pairs, the score is chosen only if it is the label.

    Args:
        header: Names of the columns of the file.
        columns: Names that the user wants, or None to recognise them.
        file: The file, for messages.
        line: Line of the header, for messages.
        lists: Whether the format can hold a list of hard negatives in one column.
        label: Column of the number in labelled rows.

    Raises:
        DataError: A name occurs twice, a wanted one is missing, or the header is not recognised.
    """
    check_names(header, file=file, line=line)
    if columns is None and (found := graded_columns(header, label)):
        return found if label is not None else found[:2]
    if label is not None:
        texts = [name for name in header if name != label] if columns is None else columns
        names = choose_columns(texts, None, file=file, line=line) if columns is None else columns
        if len(names) != 2:
            raise DataError(
                f"labelled rows have two texts and a label, but {','.join(names)} are "
                f"{len(names)} texts; name two with --columns a,b",
                file=file,
                line=line,
            )
        columns = (*names, label)
    present = set(header)
    if columns is not None:
        optional = lists and tuple(columns) == FLAG_COLUMNS
        for name in columns[:2] if optional else columns:
            if name not in present:
                raise DataError(
                    f"no column {name!r}{closest(name, list(header[:_NEAR]))}; "
                    f"the columns are {_shown(header)}",
                    file=file,
                    line=line,
                )
        return tuple(columns)
    if lists and set(FLAG_COLUMNS[:2]) <= present <= {*FLAG_COLUMNS, *FLAG_EXTRAS}:
        return FLAG_COLUMNS
    negatives = [name for name in header if is_negative(name, lists=lists)]
    fixed = present.difference(negatives)
    for names in _WITH_NEGATIVES if negatives else _SINGLE + _PAIRS:
        if fixed == set(names) and "" not in present:
            return (*names, *negatives)
    message = _unrecognised(header, lists=lists)
    raise ColumnsError(message, _shown(header), file=file, line=line)


def _unrecognised(header: Sequence[str], *, lists: bool) -> str:
    shown = _shown(header)
    scores = [name for name in header if name.lower() in SCORE_NAMES]
    texts = [name for name in header if name not in scores]
    if len(scores) > 1 and (found := graded_columns(header, scores[0])):
        return (
            f"the header {shown} has several columns of scores: {', '.join(scores)}; name the one "
            f"to learn from: --columns {','.join(found[:2])} --label {scores[0]}"
        )
    splits = [name for name in texts if name.lower() == "split"]
    if splits and (found := graded_columns([name for name in header if name not in splits])):
        return (
            f"the header {shown} has a column {splits[0]!r}, and training would use the rows of "
            "every split; write those to train on to a file of their own, or use all of them with "
            f"--columns {','.join(found[:2])} --label {found[2]}"
        )
    if len(scores) == len(texts) == 1:
        return (
            f"the header {shown} has scores in column {scores[0]!r} but only one column of texts, "
            "and graded pairs have two; call the columns sentence1, sentence2 and score, or leave "
            f"the scores out with --columns {texts[0]}"
        )
    if not lists and len(header) == 3 and sum(map(is_number, header)) == 1:
        place = next(place for place, field in enumerate(header) if is_number(field))
        rest = ",".join(str(other) for other in range(3) if other != place)
        return (
            f"the first row {shown} is not a header but looks like two texts and a score; "
            f"{graded_remedy(str(place), rest.split(','))}"
        )
    known = RECOGNISED + (" | query,pos,neg" if lists else "")
    return (
        f"the header {shown} is not one of: {known}; name the columns that hold text "
        "with --columns a,b,c"
        + ("" if lists else ", or give positions --columns 0,1 for a file with no header line")
    )


def _shown(header: Sequence[str]) -> str:
    return shorten(",".join(header), 300)


def _is_position(name: str) -> bool:
    return name.isascii() and name.isdigit()


def without_number_columns(
    rows: Iterable[tuple[str, ...]],
    names: Sequence[str],
    *,
    file: str | Path,
    texts: int | None = None,
) -> Generator[tuple[str, ...], None, None]:
    """Pass rows on, and refuse the file at the end if a column has numbers in every row.

    Only the first ``texts`` values of a row are checked, or all; ``names`` are their columns.

    Raises:
        DataError: There is such a column, and it has at least three rows.
    """
    suspects: dict[int, list[str]] | None = None
    for row in rows:
        if suspects is None:
            suspects = {place: [] for place in range(len(row) if texts is None else texts)}
        if suspects:
            for place, numbers in list(suspects.items()):
                if place >= len(row):
                    continue
                if not is_number(row[place]):
                    del suspects[place]
                elif len(numbers) < _FEWEST_NUMBERS:
                    numbers.append(row[place])
        yield row
    for place, numbers in (suspects or {}).items():
        if len(numbers) == _FEWEST_NUMBERS:
            raise DataError(_numbers_only(place, numbers[0], names), file=file)


def _numbers_only(place: int, number: str, names: Sequence[str]) -> str:
    name = names[min(place, len(names) - 1)]
    what = f"column {name!r} holds numbers only, such as {number!r}, which are not text"
    if place < 2:
        return f"{what}; name the columns that hold text with --columns a,b,c"
    return f"{what}; {graded_remedy(name, names[:2])}; otherwise leave it out"
