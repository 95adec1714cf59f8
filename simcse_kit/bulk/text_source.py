"""The text of a job: files of sentences, or standard input."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from simcse_kit.bulk.sentence_files import SentenceFile, sentence_files
from simcse_kit.data.lines import SAMPLE, STDIN, TextSample, read_lines, shown
from simcse_kit.errors import DataError

__all__ = ["TextSource"]


class TextSource:
    """Sentences of files or of standard input.

    Row i of the output is row i of the files, one after the other, so blank lines are errors. Files
    are read once in advance, which is quick and reports a bad last row before hours of computation;
    standard input is not.

    Args:
        source: File, folder, address or name of a data set, see
            :func:`~simcse_kit.bulk.sentence_files.sentence_files`; or ``-`` for standard input.
        column: Name of the column of sentences; None recognises it.

    Attributes:
        is_stdin: Whether the text comes from standard input.
        name: Name of the text for messages.
        sample: Sentences spread over the files, or the first ones of standard input.
        files: The files; none for standard input.
        file_rows: Number of sentences of each file.
        total: Number of sentences; None for standard input.
        text_bytes: Size of the files in bytes; 0 for standard input.

    Raises:
        ConfigError: A remote file cannot be copied.
        DataError: The text cannot be read, or a row of it is bad.
    """

    def __init__(self, source: str, column: str | None = None):
        self.is_stdin = source == STDIN
        self.name = shown(source)
        self.files: list[SentenceFile] = []
        self.file_rows: list[int] = []
        if self.is_stdin:
            if column is not None:
                raise DataError(
                    f"standard input has no columns; leave out --columns {column}",
                    file=self.name,
                )
            lines = read_lines(source)
            beginning = list(islice(lines, SAMPLE))
            self._lines: Iterator[str] | None = chain(beginning, lines)
            self.sample, self.total, self.text_bytes = beginning, None, 0
        else:
            self._lines = None
            self.files = sentence_files(source, column)
            sample = TextSample(self._counted())
            self.sample, self.total = sample.items, sample.seen
            self.text_bytes = sum(file.local().stat().st_size for file in self.files)

    def _counted(self) -> Iterator[str]:
        """Read all files, and count the rows of each."""
        for file in self.files:
            count = 0
            for count, text in enumerate(file.read(), 1):  # noqa: B007
                yield text
            self.file_rows.append(count)

    def __iter__(self) -> Iterator[str]:
        if self._lines is not None:
            return self._lines
        return chain.from_iterable(file.read() for file in self.files)
