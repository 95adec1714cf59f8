"""Properties of the readers: any text that is written is read back."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.columns import is_number
from simcse_kit.errors import DataError
from tests.reading import training_rows

# A byte order mark at the start of a file is dropped by design; NUL is refused by design.
CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0\n\r\ufeff")
SENTENCES = st.text(CHARACTERS, min_size=1, max_size=30).filter(str.strip)
# A column of numbers only is refused by design.
CELLS = SENTENCES.filter(lambda text: not is_number(text.strip()))
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8)
RAGGED = st.lists(
    st.tuples(CELLS, CELLS, st.lists(CELLS, min_size=1, max_size=3)),
    min_size=1,
    max_size=6,
)


def read(name: str, content: bytes, **options) -> list[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return training_rows(path, **options)


def stripped(rows) -> list[tuple[str, ...]]:
    return [tuple(text.strip() for text in row) for row in rows]


def as_csv(header, rows) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode()


@pytest.mark.parametrize("gz", ["", ".gz"])
@given(sentences=st.lists(SENTENCES, min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=40, deadline=None)
def test_txt(gz, sentences, end):
    content = "".join(sentence + end for sentence in sentences).encode()
    assert read("a.txt" + gz, content) == stripped((s,) for s in sentences)


@pytest.mark.parametrize("gz", ["", ".gz"])
@given(rows=ROWS)
@settings(max_examples=40, deadline=None)
def test_csv(gz, rows):
    assert read("a.csv" + gz, as_csv(["sent0", "sent1"], rows)) == stripped(rows)


@pytest.mark.parametrize("gz", ["", ".gz"])
@given(rows=ROWS)
@settings(max_examples=40, deadline=None)
def test_tsv(gz, rows):
    rows = [tuple(text.replace("\t", "x") for text in row) for row in rows]
    content = "".join(f"{a}\t{b}\n" for a, b in [("sent0", "sent1"), *rows]).encode()
    assert read("a.tsv" + gz, content) == stripped(rows)


@pytest.mark.parametrize("gz", ["", ".gz"])
@given(rows=RAGGED, ascii_only=st.booleans())
@settings(max_examples=40, deadline=None)
def test_jsonl(gz, rows, ascii_only):
    lines = [
        json.dumps({"anchor": a, "positive": b, "negatives": n}, ensure_ascii=ascii_only) + "\n"
        for a, b, n in rows
    ]
    wanted = stripped((a, b, *n) for a, b, n in rows)
    assert read("a.jsonl" + gz, "".join(lines).encode()) == wanted


@given(rows=RAGGED)
@settings(max_examples=40, deadline=None)
def test_parquet(rows):
    sink = io.BytesIO()
    a, b, n = (list(column) for column in zip(*rows, strict=True))
    pq.write_table(pa.table({"sent0": a, "sent1": b, "hard_neg": n}), sink)
    assert read("a.parquet", sink.getvalue()) == stripped((a, b, *n) for a, b, n in rows)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.txt.gz", "a.parquet"])
@given(content=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_bytes_give_rows_or_one_clear_line(name, content):
    options = {"columns": ("0",)} if name[2:] in ("csv", "tsv") else {}
    for on_bad_row in ("error", "skip"):
        rows, message = [], ""
        try:
            rows = read(name, content, on_bad_row=on_bad_row, **options)
        except DataError as error:
            message = str(error)
        assert bool(rows) != bool(message) or on_bad_row == "skip"
        assert "\n" not in message
        assert all(text and text == text.strip() for row in rows for text in row)


@given(lines=st.lists(st.sampled_from([b"good", b"\xff", b"", b"x\0", b"toolong"]), max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_line_is_a_row_or_counted_or_a_blank_end(lines):
    report = ReadReport()
    content = b"".join(line + b"\n" for line in lines)
    if not any(lines):
        with pytest.raises(DataError, match="empty"):
            read("a.txt", content, on_bad_row="skip")
        return
    rows = read("a.txt", content, on_bad_row="skip", report=report, max_line_bytes=5)
    while lines and not lines[-1]:
        lines = lines[:-1]
    assert len(rows) == report.rows == lines.count(b"good")
    assert report.skipped == {
        reason: lines.count(line)
        for reason, line in [
            ("not UTF-8", b"\xff"),
            ("blank line", b""),
            ("NUL byte", b"x\0"),
            ("line too long", b"toolong"),
        ]
        if line in lines
    }
