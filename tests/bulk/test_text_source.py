"""Sentences of files of any format, and ranges of their rows."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_kit.bulk.row_ranges import RangeReader, range_starts
from simcse_kit.bulk.sentence_files import SentenceFile
from simcse_kit.bulk.text_source import TextSource
from simcse_kit.errors import DataError

TEXTS = ["ein Kätzchen", "two", "  drei ", "四", "cinq", "  sei"]
STRIPPED = [text.strip() for text in TEXTS]


def lines(texts: list[str]) -> bytes:
    return b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\n\n"


def records(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def table(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    "a.txt": lines,
    "b.data": lines,
    "c.txt.bz2": lambda texts: bz2.compress(lines(texts)),
    "d.jsonl": records,
    "e.jsonl.gz": lambda texts: gzip.compress(records(texts)),
    "f.json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "g.csv": lambda texts: "".join(f"{text}\n" for text in ["text", *texts]).encode(),
    "h.parquet": table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_row_of_a_file_is_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](TEXTS))
    source = TextSource(str(path))
    assert list(source) == list(source) == source.sample == STRIPPED
    assert (source.total, source.file_rows, source.text_bytes) == (6, [6], path.stat().st_size)


@pytest.mark.parametrize("name", WRITERS)
def test_ranges_are_read_in_any_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](TEXTS))
    source = TextSource(str(path))
    starts = range_starts(source.files, source.file_rows, range(6))
    reader = RangeReader(source.files)
    for first in (0, 2, 1, 3, 5, 0):
        assert reader.read(starts[first], 2) == STRIPPED[first : first + 2]
    reader.close()


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    kinds=st.lists(st.sampled_from(sorted(WRITERS)), min_size=5, max_size=5),
    shard=st.integers(1, 12),
    order=st.randoms(use_true_random=False),
)
def test_ranges_cross_the_files_of_a_folder(
    sizes: list[int],
    kinds: list[str],
    shard: int,
    order: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    texts = [f"sentence {row}" for row in range(sum(sizes))]
    first = 0
    for number, (size, kind) in enumerate(zip(sizes, kinds, strict=False)):
        suffix = kind[1:].replace(".data", ".txt")
        (folder / f"{number}{suffix}").write_bytes(WRITERS[kind](texts[first : first + size]))
        first += size
    source = TextSource(str(folder))
    assert (list(source), source.file_rows) == (texts, sizes)
    rows = list(range(0, len(texts), shard))
    starts = range_starts(source.files, source.file_rows, rows)
    reader = RangeReader(source.files)
    pieces = list(zip(rows, starts, strict=True))
    order.shuffle(pieces)  # type: ignore[attr-defined]
    for row, start in pieces:
        assert reader.read(start, shard) == texts[row : row + shard]
    reader.close()


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_byte_order_mark_inside_a_file_is_text(name: str, tmp_path: Path) -> None:
    texts = ["\ufeffone", "\ufefftwo", "three"]
    content = "\n".join(texts).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    source = TextSource(str(path))
    expected = ["one", "\ufefftwo", "three"]
    assert list(source) == expected
    starts = range_starts(source.files, source.file_rows, range(3))
    reader = RangeReader(source.files)
    for row in range(3):
        assert reader.read(starts[row], 3) == expected[row:]
    reader.close()


def test_a_file_that_was_damaged_after_it_was_counted_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(lines([f"sentence {row}" for row in range(999)])))
    source = TextSource(str(path))
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(DataError, match=r"a\.txt\.gz: "):
        range_starts(source.files, source.file_rows, [998])
    reader = RangeReader(source.files)
    with pytest.raises(DataError, match=r"a\.txt\.gz: "):
        reader.read((0, 0), 999)
    reader.close()


def test_the_names_of_local_files_alone_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SentenceFile("a.csv", "text").absolute() == SentenceFile(f"{tmp_path}/a.csv", "text")
    for name in ("memory://bucket/a.txt", "hf:owner/name:train"):
        assert SentenceFile(name).absolute() == SentenceFile(name)


def test_standard_input_has_lines_and_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"sentence {row}" for row in range(2000)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    source = TextSource("-")
    assert (source.total, source.sample) == (None, texts[:1024])
    assert list(source) == texts
    with pytest.raises(DataError, match="leave out --columns text"):
        TextSource("-", "text")


def test_a_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("left\tright\na cat\ta dog\na car\ta bus\n", encoding="utf-8")
    assert list(TextSource(str(path), "right")) == ["a dog", "a bus"]


def test_addresses_are_files_or_folders(store: Any) -> None:
    store.pipe("/bucket/one.jsonl", records(["a cat"]))
    store.pipe("/bucket/two.txt", lines(["a dog", "a car"]))
    assert list(TextSource("memory://bucket/two.txt")) == ["a dog", "a car"]
    folder = TextSource("memory://bucket")
    assert list(folder) == ["a cat", "a dog", "a car"]
    assert [file.name for file in folder.files] == [
        "memory://bucket/one.jsonl",
        "memory://bucket/two.txt",
    ]
    store.rm("/bucket/one.jsonl")
    with pytest.raises(DataError, match=r"memory://bucket/one\.jsonl: no such file"):
        list(folder)


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.csv", b"sent0,sent1\na,b\n", None, "a.csv: holds pairs, and each vector belongs to"),
        ("a.jsonl", b'{"text": 3}\n', None, "a.jsonl:1: "),
        ("a.jsonl", b'{"text": " "}\n', None, "a.jsonl:1: "),
        ("a.csv", b"title,body\na,b\n", "text", "a.csv:1: no column 'text'; the columns are"),
        ("a.csv", b"title,body\na,b\n", None, "which one holds the sentences; name it with"),
        ("a.tsv", b"3.5\ta cat\ta dog\n", None, "without a header line its position"),
        (
            "a.jsonl",
            b'{"id": "1", "title": "a"}\n',
            None,
            "a.jsonl:1: the columns 'id,title' do not",
        ),
        ("a.txt", b"a cat\n", "text", "leave out --columns text"),
        ("a.txt", b"a cat\n\na dog\n", None, "a.txt:2: "),
        ("a.jsonl", b"", None, "a.jsonl: the file is empty"),
    ],
)
def test_files_without_a_sentence_per_row_are_refused(
    name: str, content: bytes, column: str | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        TextSource(str(tmp_path / name), column)
    assert message in str(error.value)
