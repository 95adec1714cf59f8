"""The text of a job: a file or standard input, one sentence per line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from simcse_kit.data.lines import SAMPLE, STDIN, TextSample, read_lines, shown

__all__ = ["TextSource"]


class TextSource:
    """Sentences of a text file or of standard input.

    Row i of the output is line i, so blank lines are errors. A file is read once in advance, which
    is quick and reports a bad last line before hours of computation; standard input is not.

    Args:
        source: File name, or ``-`` for standard input.

    Attributes:
        is_stdin: Whether the text comes from standard input.
        name: Name of the text for messages.
        sample: Sentences spread over a file, or the first ones of standard input.
        total: Number of sentences; None for standard input.
        text_bytes: Size of a file in bytes; 0 for standard input.

    Raises:
        DataError: The text cannot be read, or a line of it is bad.
    """

    def __init__(self, source: str):
        self.is_stdin = source == STDIN
        self.name = shown(source)
        self._source = source
        if self.is_stdin:
            lines = read_lines(source)
            beginning = list(islice(lines, SAMPLE))
            self._lines: Iterator[str] | None = chain(beginning, lines)
            self.sample, self.total, self.text_bytes = beginning, None, 0
        else:
            self._lines = None
            sample = TextSample(read_lines(source))
            self.sample, self.total = sample.items, sample.seen
            self.text_bytes = Path(source).stat().st_size

    def __iter__(self) -> Iterator[str]:
        return read_lines(self._source) if self._lines is None else self._lines
