"""Files of sentences: lines of text, or one column of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from simcse_kit.data.files import check_file, format_of, suffix_of
from simcse_kit.data.find import find_files
from simcse_kit.data.hub_data import is_data_set
from simcse_kit.data.lines import read_lines
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import read_texts
from simcse_kit.data.remote import is_remote, local_file, remote_files
from simcse_kit.errors import ColumnsError, DataError

__all__ = ["SentenceFile", "sentence_files"]


@dataclass(frozen=True)
class SentenceFile:
    """A file with one sentence per row.

    Attributes:
        name: Path; or address or name of a data set, see :mod:`~simcse_kit.data.remote`.
        column: Name of the column of sentences; None recognises it.
    """

    name: str
    column: str | None = None

    def local(self) -> Path:
        """Return the path of the file, after copying it into the cache if it is remote.

        Raises:
            ConfigError, DataError: As for :func:`~simcse_kit.data.remote.local_file`.
        """
        return local_file(self.name)

    def absolute(self) -> SentenceFile:
        """Return the same file by a name that does not depend on the working folder."""
        if is_remote(self.name):
            return self
        return replace(self, name=str(Path(self.name).absolute()))

    @property
    def has_lines(self) -> bool:
        """Whether each line is a sentence, as in all files without another known suffix."""
        if is_data_set(self.name):
            return False
        return suffix_of(self.name) is None or format_of(self.name) == "txt"

    def read(self) -> Iterator[str]:
        """Read the sentences, stripped of surrounding whitespace.

        Raises:
            ConfigError: A copy cannot be made.
            DataError: The file cannot be read, has no column of sentences or several, or a row is
                bad.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> with TemporaryDirectory() as folder:
            ...     path = Path(folder, "titles.jsonl")
            ...     _ = path.write_text('{"title": "A cat sat.", "year": 1998}\\n')
            ...     list(SentenceFile(str(path), "title").read())
            ['A cat sat.']
        """
        path = self.local()
        if self.has_lines:
            if self.column is not None:
                raise DataError(
                    f"a file of lines has no columns; leave out --columns {self.column}",
                    file=path,
                )
            return read_lines(path)
        try:
            kind, rows = read_texts(
                path, ReadOptions(columns=None if self.column is None else [self.column])
            )
        except ColumnsError as error:
            table = format_of(path) in ("csv", "tsv")
            position = " (without a header line its position, such as 0)" if table else ""
            raise DataError(
                f"the columns {error.header} do not show which one holds the sentences; name it "
                f"with --columns NAME{position}, or rename the file to .txt to encode its lines",
                file=path,
                line=error.line,
            ) from None
        if kind != "texts":
            rows.close()
            raise DataError(
                f"holds {kind}, and each vector belongs to one text; name the column of the texts "
                "with --columns NAME",
                file=path,
            )
        return (text for (text,) in rows)


def sentence_files(source: str, column: str | None = None) -> list[SentenceFile]:
    """List the files of a source.

    Args:
        source: File of any suffix; folder or address of a folder, which means its files with a
            supported suffix, sorted by name; address of a file; or name of a data set.
        column: Name of the column of sentences; None recognises it.

    Raises:
        ConfigError: The name or address is wrong, or the package of its file system is not
            installed.
        DataError: A file is missing, or a folder holds no data.
    """
    if is_data_set(source):
        names = [source]
    elif is_remote(source):
        names = [file.address for file in remote_files(source)]
    elif Path(source).is_dir():
        names = [str(path) for path in find_files(source)]
    else:
        names = [str(check_file(source))]
    return [SentenceFile(name, column) for name in names]
