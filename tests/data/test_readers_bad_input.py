"""Every kind of bad input: one line that names file and line; skipped rows are counted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.files import SUFFIXES, SUFFIXES_IN_WORDS, format_of
from simcse_kit.data.find import find_files
from simcse_kit.data.lines import read_lines
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import file_kind
from simcse_kit.data.records import read_records
from simcse_kit.errors import ConfigError, DataError
from tests.reading import training_rows


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(path: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        training_rows(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


LONG = "x" * 200
RAGGED = "wrong number of fields"
TOO_LONG = "line too long"

# (name, content, line, reason, what the message must hold, good rows left when skipping)
BAD_ROWS = [
    ("a.txt", b"one\ncaf\xe9 two\nthree\n", 2, "not UTF-8", ["0xe9", "byte 4", "iconv"], 2),
    ("a.txt", b"\xc3\xa9\xff\nb\n", 1, "not UTF-8", ["0xff", "byte 3", "column 2"], 1),
    ("a.txt", b"one\nt\0o\nthree\n", 2, "NUL byte", ["NUL byte at byte 2"], 2),
    ("a.txt", b"one\n\n \nthree\n", 2, "blank line", ["blank line"], 2),
    ("a.txt", f"one\n{LONG}\nthree\n", 2, "line too long", ["longer than 150 bytes"], 2),
    ("a.csv", "text\none\n\ntwo\n", 3, "blank line", ["blank line"], 2),
    ("a.csv", "sent0,sent1\na,b\nc\nd,e\n", 3, RAGGED, ["expected 2", "found 1"], 2),
    ("a.csv", "sent0,sent1\na,b\nc,d,e\n", 3, RAGGED, ["expected 2", "found 3"], 1),
    ("a.csv", 'text\n"a\nb"\n"c"d\ne\n', 4, "bad csv quoting", ["after a closing quote"], 2),
    ("a.csv", 'text\na\n"b\nc\n', 3, "bad csv quoting", ["never closed"], 1),
    ("a.csv", f'text\na\n"{"x" * 90}\n{"x" * 90}"\nb\n', 3, TOO_LONG, ["quote left open"], 2),
    ("a.csv", b'text\n"a\n\xff\nb"\nc\n', 2, "not UTF-8", ["0xff", "(on line 3"], 1),
    ("a.csv", "sent0,sent1\na,b\n , c\n", 3, "blank anchor", ["anchor"], 1),
    ("a.csv", "sent0,sent1\na,b\nc,\n", 3, "blank positive", ["positive"], 1),
    ("a.csv", "sent0,sent1,hard_neg\na,b,c\nd,e, \n", 3, "no hard negative", ["hard negative"], 1),
    ("a.tsv", "sent0\tsent1\na\tb\nc\td\te\n", 3, RAGGED, ["found 3"], 1),
    ("a.tsv", "sent0\tsent1\thard_neg\na\tb\tc\nd\te\n", 3, RAGGED, ["found 2"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": }\n', 2, "invalid JSON", ["column 10"], 1),
    ("a.jsonl", '{"text": "a"}\n' + "[" * 140 + "\n", 2, "invalid JSON", ["invalid JSON"], 1),
    ("a.jsonl", '{"text": "a"}\n["b"]\n', 2, "not a JSON object", ["a list"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', 2, "value is not text", ["'text' is a number"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": null}\n', 2, "value is not text", ["is null"], 1),
    ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', 2, "missing key", ["no key 'text'", "txt"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": "b", "id": "1"}\n', 2, "unexpected key", ["'id'"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', 2, "repeated key", ["twice"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', 2, "lone surrogate", ["surrogate"], 1),
    ("a.jsonl", '{"text": "a"}\n{"text": "b\\u0000"}\n', 2, "NUL byte", ["NUL"], 1),
    ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n', 2, "blank line", ["blank line"], 2),
    (
        "a.jsonl",
        '{"anchor": "a", "positive": "b", "negatives": ["c"]}\n'
        '{"anchor": "a", "positive": "b", "negatives": ["d", 7]}\n',
        2,
        "value is not text",
        ["'negatives' is a number"],
        1,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "line", "reason", "words", "good"),
    BAD_ROWS,
    ids=[f"{row[0]}-{row[3]}-{index}" for index, row in enumerate(BAD_ROWS)],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_bad_rows(tmp_path, name, content, line, reason, words, good, zipped):
    data = content.encode() if isinstance(content, str) else content
    path = put(tmp_path, name + ".gz" * zipped, gzip.compress(data) if zipped else data)
    message = failure(path, max_line_bytes=150)
    assert message.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in message
    report = ReadReport()
    options = {"on_bad_row": "skip", "report": report, "max_line_bytes": 150}
    assert len(training_rows(path, **options)) == report.rows == good
    assert set(report.skipped) == {reason}
    assert report.first_skipped == {reason: f"{path}:{line}"}


def test_every_bad_row_is_counted(tmp_path):
    path = put(tmp_path, "a.txt", b"a\n\n\nb\n\xff\nc\n\nd\n\n\n\n")
    report = ReadReport()
    rows = training_rows(path, report, on_bad_row="skip")
    assert rows == [("a",), ("b",), ("c",), ("d",)]
    assert report.skipped == {"blank line": 3, "not UTF-8": 1}
    assert report.total_skipped == 4
    assert f"first: {path}:2" in report.summary()


# (name, content, place after the file name, words)
BAD_FILES = [
    ("a.txt", b"", "", ["empty"]),
    ("a.txt", b"\n \n", "", ["only blank lines"]),
    ("a.txt", "h\n".encode("utf-16"), ":1", ["UTF-16", "iconv"]),
    ("a.txt", "h\n".encode("utf-32"), ":1", ["UTF-32", "iconv"]),
    ("a.txt", gzip.compress(b"a\n"), "", ["does not end in .gz"]),
    ("a.txt.gz", gzip.compress(b"a\n" * 9000)[:-9], "", ["truncated gzip"]),
    ("a.txt.gz", b"plain text\n", "", ["damaged gzip"]),
    ("a.csv", b"", "", ["empty"]),
    ("a.csv", b"text\n", "", ["header but no row"]),
    ("a.csv", b"\nfoo,bar\n1,2\n3,4\n", ":2", ["'foo,bar'", "--columns a,b,c", "--columns 0,1"]),
    ("a.csv", b"text,text\na,b\n", ":1", ["'text' occurs twice"]),
    ("a.csv", b"sent0\tsent1\na\tb\n", ":1", ["tabs but no commas", ".tsv"]),
    ("a.csv", b"te\xfft\nsentence\na\n", ":1", ["0xff"]),
    ("a.csv", b"sent0,hard_neg\na,b\n", ":1", ["is not one of", "sent0[,sent1"]),
    ("a.tsv", b"premise\thypothesis\na\tb\n", ":1", ["'premise,hypothesis'"]),
    ("a.jsonl", b'{"foo": "a"}\n', ":1", ["'foo'", "--columns"]),
    ("a.jsonl", b"{\n{\n", "", ["every row is bad"]),
    ("a.parquet", b"", "", ["empty"]),
    ("a.parquet", b"PAR1 is not enough" * 3, "", ["not a readable parquet"]),
    ("a.json", b"[]", "", ["its array has no item"]),
    ("a.json", b"", "", ["empty"]),
    ("a.json", b'{"text": "a"}', "", ["not an array of objects or strings", ".jsonl"]),
    ("a.json", b'{"text": "a"}\n{"text": "b"}\n', ":2", ["rename the file to .jsonl"]),
    ("a.json", b'["a",\n"b"\n"c"]', ":3", ["expected a comma"]),
    ("a.json", b'["a",\n{"text": "b", "text": "c"}]', ":2", ["'text' occurs twice"]),
    ("a.json", b'["a"]\n["b"]', ":2", ["after the end of the JSON array"]),
    ("a.json", b'["a",\n"b', ":2", ["invalid JSON", "Unterminated"]),
    ("a.json", b"[" * 200_000, ":1", ["nested too deeply"]),
    ("a.json", b'["a",\n"\xff"]', ":2", ["not UTF-8: byte 0xff"]),
    ("a.json", "[]".encode("utf-16"), ":1", ["UTF-16", "iconv"]),
    ("a.md", b"x", "", [".jsonl and .json", ".bz2 or .xz", ".parquet", "'.md'"]),
    ("a.txt.zip", b"x", "", ["'.zip'", "unzip "]),
    ("a.txt.zst", b"x", "", ["'.zst'", "zstd -d "]),
    ("a.tar.gz", b"x", "", ["'.tar.gz'", "tar -xf "]),
    ("a.txt", b"PK\x03\x04", "", ["zip archive", "unzip"]),
    ("a.txt", bz2.compress(b"a\n"), "", ["does not end in .bz2"]),
    ("a.txt", lzma.compress(b"a\n"), "", ["does not end in .xz"]),
    (
        "a.txt.bz2",
        bz2.compress(random.Random(0).randbytes(9000).hex().encode())[:-9],
        "",
        ["trunc"],
    ),
    ("a.txt.bz2", b"plain text\n", "", ["damaged bzip2"]),
    ("a.txt.xz", lzma.compress(b"a\n" * 9000)[:-9], "", ["truncated xz"]),
    ("a.txt.xz", b"plain text and more of it\n", "", ["damaged xz"]),
    ("a", b"x", "", ["no suffix", ".txt"]),
]


@pytest.mark.parametrize(
    ("name", "content", "place", "words"),
    BAD_FILES,
    ids=[f"{row[0]}-{index}" for index, row in enumerate(BAD_FILES)],
)
def test_file_errors_stay_errors_when_skipping(tmp_path, name, content, place, words):
    path = put(tmp_path, name, content)
    message = failure(path, on_bad_row="skip")
    assert message.startswith(f"{path}{place}: ")
    for word in words:
        assert word in message


def test_missing_column_lists_the_columns_and_the_closest(tmp_path):
    path = put(tmp_path, "a.csv", "premise,hypothesis\na,b\n")
    message = failure(path, columns=("premise", "hypotesis"))
    assert message.startswith(f"{path}:1: no column 'hypotesis' (did you mean 'hypothesis'?)")
    assert "premise,hypothesis" in message
    path = put(tmp_path, "a.jsonl", '{"premise": "a"}\n')
    assert failure(path, columns=("premis",)).startswith(f"{path}:1: no column 'premis' (did you")
    path = put(tmp_path, "b.csv", "a,b\nc,d\n")
    assert failure(path, columns=("0", "2")).startswith(f"{path}:1: no column at position 2")


@pytest.mark.parametrize("columns", [("a", "a"), ("0", "name"), ("a", " "), "abc"])
def test_wrong_columns(tmp_path, columns):
    path = put(tmp_path, "a.csv", "a,b\n1,2\n")
    with pytest.raises(ConfigError, match="columns"):
        training_rows(path, columns=columns)


def test_columns_that_the_format_cannot_have(tmp_path):
    assert "no columns" in failure(put(tmp_path, "a.txt", "a\n"), columns=("text",))
    message = failure(put(tmp_path, "a.jsonl", '{"text": "a"}\n'), columns=("0",))
    assert "positions" in message


def test_other_arguments(tmp_path):
    path = put(tmp_path, "a.txt", "a\n")
    with pytest.raises(ConfigError, match="allowed: 'error', 'skip'"):
        training_rows(path, on_bad_row="ignore")
    with pytest.raises(ConfigError, match="max_line_bytes is 0"):
        training_rows(path, max_line_bytes=0)


@pytest.mark.parametrize(
    ("column", "kind"),
    [([1, 2], "int64"), ([["a"], ["b"]], "list<"), ([None, None], "null")],
)
def test_parquet_column_type(tmp_path, column, kind):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path)
    message = failure(path)
    assert message.startswith(f"{path}: column 'text' has type {kind}")
    assert "allowed: string" in message


def test_parquet_without_the_column_or_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"txt": ["a"]}), path)
    assert "'txt' is not one of" in failure(path)
    assert "did you mean 'txt'" in failure(path, columns=("text",))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "no row" in failure(path)


def test_parquet_bad_rows_are_named_by_their_number(tmp_path):
    path = tmp_path / "a.parquet"
    raw = pa.array([b"ok", b"b\xff", b"c", b"d", b"e" * 200, b"f\0"], pa.binary())
    # A cast would check the bytes; a view does not, and neither do some writers.
    texts = pa.Array.from_buffers(pa.string(), 6, raw.buffers())
    pq.write_table(pa.table({"sent0": texts, "sent1": ["x", "x", None, " ", "x", "x"]}), path)
    report = ReadReport()
    options = {"on_bad_row": "skip", "report": report, "max_line_bytes": 100}
    assert training_rows(path, **options) == [("ok", "x")]
    assert report.first_skipped == {
        "not UTF-8": f"{path}:2",
        "value is not text": f"{path}:3",
        "blank positive": f"{path}:4",
        "line too long": f"{path}:5",
        "NUL byte": f"{path}:6",
    }
    assert failure(path).startswith(f"{path}:2: not UTF-8: byte 0xff at byte 2")


def test_paths(tmp_path):
    missing = tmp_path / "missing.txt"
    assert failure(missing).startswith(f"{missing}: no such file or folder")
    with pytest.raises(DataError, match="no such file"):
        find_files([missing])
    with pytest.raises(DataError, match=r"null (byte|character)"):
        find_files(["a\0.txt"])
    with pytest.raises(DataError, match="no input file"):
        find_files([])
    with pytest.raises(DataError, match="standard input"):
        find_files(["-"])
    link = tmp_path / "link.txt"
    link.symlink_to(missing)
    with pytest.raises(DataError, match="a link whose target is missing"):
        find_files(tmp_path)


def test_pipes_and_devices_are_not_opened(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    assert failure(pipe).startswith(f"{pipe}: is a pipe, not a regular file")
    with pytest.raises(DataError, match="is a device or socket, not a regular file"):
        next(read_lines("/dev/zero"))
    with pytest.raises(DataError, match="is a folder"):
        next(read_records(tmp_path, ReadOptions(format="tsv")))


def test_unreadable_file(tmp_path, monkeypatch):
    path = put(tmp_path, "a.txt", "a\n")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("simcse_kit.data.lines._CountedFile", refuse)
    assert failure(path) == f"{path}: cannot be read: Permission denied"


def test_folder(tmp_path):
    for name in ("b.txt", "a.txt.gz", ".hidden.txt", "notes.md", "C.TXT"):
        put(tmp_path, name, "x\n")
    (tmp_path / "sub.txt").mkdir()
    assert [file.name for file in find_files(tmp_path)] == ["C.TXT", "a.txt.gz", "b.txt"]
    empty = tmp_path / "sub.txt"
    with pytest.raises(DataError) as caught:
        find_files([empty])
    assert str(caught.value).startswith(f"{empty}: ")
    assert SUFFIXES_IN_WORDS in str(caught.value)
    for name in SUFFIXES:
        assert format_of(f"a{name}") == name.split(".")[1]


def test_other_files_of_a_folder_are_counted(tmp_path, caplog):
    for name in ("a.txt", "b.txt.zst", "notes.md"):
        put(tmp_path, name, "x\n")
    with caplog.at_level("INFO"):
        find_files(tmp_path)
    assert "reading 1 files; ignoring 2 other entries, such as b.txt.zst" in caplog.text


def test_standard_input(monkeypatch):
    def feed(data: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    feed(b"\xef\xbb\xbfa\r\n b \n\n")
    assert list(read_lines("-")) == ["a", "b"]
    feed(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"^<standard input>:2: not UTF-8"):
        list(read_lines("-"))
    feed(b"")
    with pytest.raises(DataError, match="empty"):
        list(read_lines("-"))


def test_kind_is_known_from_the_first_rows(tmp_path):
    assert file_kind(put(tmp_path, "a.txt", b"a\n\xff")) == "texts"
    assert file_kind(put(tmp_path, "a.csv", b"sent0,sent1\na,b\n\xff")) == "pairs"
    path = put(tmp_path, "a.jsonl", '{"sent0": "a", "sent1": "b", "hard_neg": []}\n')
    assert file_kind(path) == "triplets"
