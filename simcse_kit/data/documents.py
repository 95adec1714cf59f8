"""Rows of neighbouring sentences from documents: a sentence a line, a blank line after each."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from pathlib import Path

from simcse_kit.data.bad_rows import RowGate
from simcse_kit.data.lines import OnBytes, scan
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.errors import DataError

__all__ = ["read_documents"]


def read_documents(
    path: str | Path, options: ReadOptions, gate: RowGate, on_bytes: OnBytes | None = None
) -> Generator[tuple[str, ...], None, None]:
    """Read each sentence with the sentences that follow it in its document, in bounded memory.

    The last sentence of a document gives no row, and rows near the end of a document are shorter. A
    bad line ends a document, since the lines around it are not neighbours. A document of one
    sentence gives no row and is counted among the skipped rows.

    Yields:
        Two to ``options.documents + 1`` sentences.

    Raises:
        DataError: The file cannot be read or is empty, a line is bad, or no document has two
            sentences.
    """
    window: deque[str] = deque()
    number = found = length = 0
    limit = options.max_line_bytes
    for number, text, problem in scan(path, max_line_bytes=limit, on_bytes=on_bytes):
        sentence = "" if problem is not None else text.strip()
        if problem is not None:
            gate.reject(number, problem)
        if sentence:
            length += 1
            window.append(sentence)
            if len(window) <= options.documents:
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
    """Count the document that ended at ``line`` as skipped if it has one sentence."""
    if length == 1:
        gate.report.skip("document of one sentence", f"{gate.file}:{line}")


def _rest(window: deque[str]) -> list[tuple[str, ...]]:
    """Return the rows that are left at the end of a document, and empty the window."""
    rest = list(window)
    window.clear()
    return [tuple(rest[start:]) for start in range(len(rest) - 1)]
