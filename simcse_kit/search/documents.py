"""Documents of an index: from files of any format, or from Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from simcse_kit.data.lines import OnBytes, shown
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_paths
from simcse_kit.errors import DataError
from simcse_kit.utils.json import plain

__all__ = ["Document", "Identified", "check_documents", "identified", "read_documents"]

_TEXT_COLUMNS = ("text", "sentence", "sent0", "document")


@dataclass(frozen=True)
class Document:
    """A text to be found.

    Attributes:
        text: The text.
        id: Name of the document, unique in an index; None for the next free number.
        metadata: Further values, which JSON can represent.
        file: File that the document comes from, for messages.
        line: Line in the file, or number of the row.

    Examples:
        >>> Document("A dog runs.", id="d1", metadata={"source": "news"}).id
        'd1'
    """

    text: str
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """A document as it is stored.

    Attributes:
        id: Unique id.
        text: The text, stripped.
        metadata: JSON text of an object.
    """

    id: str
    text: str
    metadata: str


def read_documents(
    files: Sequence[str | Path], *, text: str | None = None, id: str | None = None
) -> Iterator[Document]:
    """Read documents from files.

    The columns other than text and id become the metadata.

    Args:
        files: .txt files with one sentence per line, .csv, .tsv, .jsonl, .json and .parquet files.
        text: Column of the text; by default ``text``, ``sentence``, ``sent0`` or ``document``. A
            position such as ``0`` reads a .csv or .tsv file without header.
        id: Column of the ids; None to number the documents.

    Raises:
        DataError: A file cannot be read, a column is missing, or a row is bad.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("key,text\\nd1,A dog runs.\\n", encoding="utf-8")
        ...     [(document.id, document.text) for document in read_documents([path], id="key")]
        [('d1', 'A dog runs.')]
    """
    paths = local_paths(files)
    with reading_progress(paths) as on_bytes:
        for file in paths:
            records, column, named = _opened(file, text, id, on_bytes)
            for line, record, texts in records.with_texts((column,)):
                rest = {key: record[key] for key in record if key not in (column, named)}
                name = None if named is None else _id_of(record.get(named), named, file, line)
                yield Document(texts[0], name, rest, shown(file), line)


def check_documents(files: Sequence[str | Path], *, text: str | None, id: str | None) -> None:
    """Check that files exist and have the columns, without reading them to the end.

    Args:
        files: As for :func:`read_documents`.
        text: As for :func:`read_documents`.
        id: As for :func:`read_documents`.

    Raises:
        DataError: A file cannot be read, or a column is missing.
    """
    for file in local_paths(files):
        _opened(file, text, id)


def _opened(
    file: str | Path, text: str | None, id: str | None, on_bytes: OnBytes | None = None
) -> tuple[Records, str, str | None]:
    """Open a file, and find its columns of texts and ids."""
    options = ReadOptions(columns=None if text is None else (text,))
    records = Records(file, options, on_bytes=on_bytes)
    if records.format == "txt" and (text, id) != (None, None):
        raise DataError(
            "a .txt file has no columns; leave out --text and --id, or rename the file to .tsv or "
            ".csv",
            file=file,
        )
    column = records.column(text, _TEXT_COLUMNS, what="text", flag="--text")
    named = None if id is None else records.column(id, (), what="ids", flag="--id")
    return records, column, named


def _id_of(value: Any, column: str, file: str | Path, line: int) -> str:
    name = str(value).strip() if isinstance(value, str | int) else ""
    if not name or isinstance(value, bool):
        raise DataError(
            f"the id in column {column!r} is {value!r:.60}; give a text or a whole number",
            file=file,
            line=line,
        )
    return name


def identified(
    documents: Iterable[str | Document], *, taken: set[str], next_id: int
) -> Iterator[Identified]:
    """Check documents, and number those without an id.

    Args:
        documents: Texts or documents. A single string is refused.
        taken: Ids of the index.
        next_id: Next free number.

    Yields:
        The documents with distinct ids.

    Raises:
        DataError: A document is not a text, its text is blank, its id occurs twice, or JSON cannot
            represent its metadata.
    """
    if isinstance(documents, str):
        raise DataError("the documents are one string; give a list of strings")
    given: dict[str, tuple[str | None, int | None]] = {}
    for number, document in enumerate(documents, 1):
        if isinstance(document, str):
            document = Document(document)
        if not isinstance(document, Document):
            raise DataError(
                f"document {number} is {type(document).__name__}; give strings or Document objects"
            )
        file, line = document.file, document.line
        where = "" if file else f"document {number}: "
        text, name = document.text, document.id
        problem = _problem_of(text, "text") or (None if name is None else _problem_of(name, "id"))
        if problem is not None:
            raise DataError(f"{where}{problem}", file=file, line=line)
        if name is None:
            while str(next_id) in given:
                next_id += 1
            name, next_id = str(next_id), next_id + 1
        elif name in taken:
            raise DataError(
                f"{where}the id {name!r} is in the index already; replace the old document with "
                "--overwrite, or give the new one another id",
                file=file,
                line=line,
            )
        if name in given:
            before = ":".join(str(part) for part in given[name] if part is not None)
            raise DataError(
                f"{where}the id {name!r} occurs twice, first at {before}; give each document its "
                "own id, or leave out the ids to number the documents",
                file=file,
                line=line,
            )
        given[name] = (file, line) if file else (None, number)
        yield Identified(name, text.strip(), _json(document, where))


def _problem_of(value: Any, what: str) -> str | None:
    if not isinstance(value, str):
        return f"the {what} is {type(value).__name__}, not a string"
    if not value.strip():
        return f"the {what} is blank; fill it or leave the document out"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"the {what} holds half a surrogate pair: {value!a:.60}; read the file as UTF-8"
    return None


def _json(document: Document, where: str) -> str:
    try:
        return json.dumps(plain(dict(document.metadata)), default=_converted)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}JSON cannot represent the metadata: {error}; leave this column out",
            file=document.file,
            line=document.line,
        ) from None


def _converted(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(f"a value is {type(value).__name__}")
