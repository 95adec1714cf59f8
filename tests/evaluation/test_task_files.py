"""Task files of a user: the formats that are read, and the rows that are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from simcse_kit.errors import DataError
from simcse_kit.evaluation.tasks.files import read_columns, read_lines

ROWS = [{"text": "a  cat", "label": 1, "more": [2]}, {"text": "rain", "label": "x"}]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_the_same_columns(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    table = "label\ttext\n1\ta  cat\nx\train\n"
    for name, content in (
        ("a.jsonl", lines),
        ("b.jsonl", lines.replace("\n", "\n\n", 1)),
        ("a.jsonl.gz", gzip.compress(lines.encode())),
        ("a.json", json.dumps(ROWS)),
        ("a.tsv", table),
        ("a.csv", table.replace("\t", ",")),
    ):
        rows = [row for _, row in read_columns(put(tmp_path / name, content), ("text", "label"))]
        assert [(row["text"], row["label"]) for row in rows] == [("a cat", "1"), ("rain", "x")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "text\tlab\na\tb\n", r"a\.tsv:1: the header names text, lab; it must name text"),
        ("a.tsv", "text\tlabel\na\t\n", r"a\.tsv:2: column 'label' is missing or blank"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", r"a\.tsv:2: ragged row: expected 2 fields, found 3"),
        ("a.tsv", "text\tlabel\na\tb\n\nc\td\n", r"a\.tsv:3: blank line"),
        ("a.jsonl", '{"text": "a"}\n', r"a\.jsonl:1: column 'label' is missing or blank"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', r"a\.jsonl:1: key 'text' occurs twice"),
        ("a.jsonl", "[" * 5000 + "\n", r"a\.jsonl:1: invalid JSON: nested too deeply"),
        ("a.doc", "a", r"a\.doc: suffix '\.doc' is not supported"),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list(read_columns(put(tmp_path / name, content), ("text", "label")))
    assert "\n" not in str(caught.value)


def test_only_newlines_end_the_lines_of_published_files(tmp_path: Path) -> None:
    path = put(tmp_path / "a", "\ufeffa\u2028b\x85c\r\n\nd\n")
    assert read_lines(path) == ["a\u2028b\x85c", "", "d"]
    assert read_lines(put(path, b"caf\xe9\n"), "latin-1") == ["café"]
