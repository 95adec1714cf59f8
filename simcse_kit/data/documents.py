"""Documents: a sentence a line, and a blank line after each document."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from pathlib import Path

from simcse_kit.data.bad_rows import RowGate
from simcse_kit.data.lines import MAX_LINE_BYTES, OnBytes, scan
from simcse_kit.errors import DataError

__all__ = ["read_documents"]


def read_documents(
    path: str | Path,
    gate: RowGate,
    following: int,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
) -> Generator[tuple[str, ...], None, None]:
    """Each sentence with those that come next in its document, in bounded memory.

    The last sentence of a document has none after it and gives no row; near the end of a document
    rows are shorter. A bad line ends a document, since its neighbours are no neighbours of each
    other. A document of one sentence gives no row at all and is counted among the skipped rows.

    Args:
        path: a .txt file, gzipped or not.
        gate: decides over bad lines.
        following: most sentences after the first of a row.
        max_line_bytes: the longest line accepted.
        on_bytes: told of the bytes read from the file.

    Yields:
        Two to ``following + 1`` sentences.

    Raises:
        DataError: the file cannot be read or is empty, a line is bad, or no document has two
            sentences.
    """
    window: deque[str] = deque()
    number = found = length = 0
    for number, text, problem in scan(path, max_line_bytes=max_line_bytes, on_bytes=on_bytes):
        sentence = "" if problem is not None else text.strip()
        if problem is not None:
            gate.reject(number, problem)
        if sentence:
            length += 1
            window.append(sentence)
            if len(window) <= following:
                continue
            found += 1
            yield tuple(window)
            window.popleft()
            continue
        _count_single(gate, number - 1, length)
        length = 0
        for row in _rest(window):
            found += 1
            yield row
    _count_single(gate, number, length)
    for row in _rest(window):
        found += 1
        yield row
    if number == 0:
        raise DataError("the file is empty", file=path)
    if not found:
        raise DataError(
            "no document has two sentences; write a sentence a line, and a blank line after each "
            "document",
            file=path,
        )


def _count_single(gate: RowGate, line: int, length: int) -> None:
    """Count the document that ended at ``line`` as skipped if it had one sentence."""
    if length == 1:
        gate.report.skip("document of one sentence", f"{gate.file}:{line}")


def _rest(window: deque[str]) -> list[tuple[str, ...]]:
    """The rows that are left at the end of a document; empties the window."""
    rest = list(window)
    window.clear()
    return [tuple(rest[start:]) for start in range(len(rest) - 1)]
