"""Records with all their values, written and read back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import read_texts
from simcse_kit.data.records import Records
from simcse_kit.errors import ConfigError, DataError

ROWS = [
    {"sent0": 'a "b", c', "sent1": "x\ny", "n": "1"},
    {"sent0": "car\rriage", "sent1": "naïve ☕", "n": ""},
]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    with writing(tmp_path / name, list(ROWS[0])) as writer:
        for row in ROWS:
            writer.write(row)
    records = Records(tmp_path / name)
    assert records.columns == ("sent0", "sent1", "n")
    assert [record for _, record in records] == ROWS
    kind, texts = read_texts(tmp_path / name, ReadOptions(columns=["sent0", "sent1"]))
    assert (kind, list(texts)) == ("pairs", [(r["sent0"], r["sent1"]) for r in ROWS])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_takes_no_value_that_its_first_row_has_not(tmp_path: Path) -> None:
    message = r"row 2 has 'id', which the first row lacks .* write \.jsonl"

    def write_two() -> None:
        with writing(tmp_path / "a.csv", ["text"]) as writer:
            writer.write({"text": "x"})
            writer.write({"text": "y", "id": 2})

    with pytest.raises(DataError, match=message):
        write_two()
    assert not list(tmp_path.iterdir())


def test_tabs_and_line_ends_become_spaces_where_they_are_marks(tmp_path: Path) -> None:
    with writing(tmp_path / "a.tsv", ["sent0", "sent1"]) as writer:
        writer.write({"sent0": "a\tb", "sent1": "c\r\nd"})
    assert (tmp_path / "a.tsv").read_text() == "sent0\tsent1\na b\tc d\n"


def test_equal_rows_give_equal_gzip_files(tmp_path: Path) -> None:
    for name in ("a.txt.gz", "b.txt.gz"):
        with writing(tmp_path / name, ["text"]) as writer:
            writer.write({"text": "hello"})
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.txt.gz").read_bytes()) == b"hello\n"


def test_parquet_keeps_its_values(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"sent0": "a", "sent1": "b", "negatives": ["c", "d"], "n": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    told: list[int] = []
    records = Records(tmp_path / "a.parquet", on_bytes=told.append)
    assert list(records) == [(1, rows[0])]
    assert sum(told) == (tmp_path / "a.parquet").stat().st_size
    named = Records(records.path, ReadOptions(columns=["sent0", "negatives"]))
    assert named.text_columns() == ("sent0", "negatives")
    assert records.texts(rows[0], ["sent0", "negatives"]) == ("a", "c", "d")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable parquet"):
        Records(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,a\n1,2\n", {}, r"x\.csv:1: column 'a' occurs twice"),
        ("a,b\n1\n", {}, r"x\.csv:2: ragged row: expected 2 fields, found 1"),
        ("", {}, "the file is empty"),
        ("a,b\n1,2\n", {"format": "tvs"}, "format is 'tvs' .did you mean 'tsv'"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises((DataError, ConfigError), match=message):
        list(Records(tmp_path / "x.csv", ReadOptions(**options)))


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    with pytest.raises(DataError, match=r"several values in 'x'.*write \.jsonl"):  # noqa: SIM117
        with writing(target, ["x"]) as writer:
            writer.write({"x": ["1"]})
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.parquet", r"written as \.txt, \.csv"),
        ("a", r"written as \.txt, \.csv"),
        ("a.txt", "holds one text a line"),
        ("no/a.csv", "does not exist; create it first"),
        ("folder.csv", "is a folder"),
        ("there.csv", "already exists; give another name, or --overwrite"),
    ],
)
def test_outputs_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("")
    with pytest.raises(ConfigError, match=message):
        check_output(tmp_path / name, overwrite=False, columns=2)
    assert check_output(tmp_path / "there.csv", overwrite=True, columns=2).name == "there.csv"


def test_jsonl_rows_keep_keys_of_their_own(tmp_path: Path) -> None:
    lines = [{"text": "a"}, {"text": "b", "more": {"x": [1]}}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with writing(tmp_path / "b.jsonl", ["text"]) as writer:
        for _, record in Records(tmp_path / "a.jsonl"):
            writer.write(record)
    assert (tmp_path / "b.jsonl").read_text() == (tmp_path / "a.jsonl").read_text()


def test_a_header_that_cannot_be_read_is_refused_although_bad_rows_are_skipped(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.csv").write_bytes(b"te\xfft,more\nsent0,sent1\na,b\n")
    with pytest.raises(DataError, match=r"x\.csv:1: not UTF-8"):
        Records(tmp_path / "x.csv", ReadOptions(on_bad_row="skip"))


def test_a_parquet_text_that_is_not_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"a cat", b"caf\xe9", b"rain"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": texts, "n": [1, 2, 3]}), path)
    with pytest.raises(DataError, match=r"x\.parquet:2: not UTF-8: byte 0xe9 at byte 4"):
        list(Records(path))
    report = ReadReport()
    records = Records(path, ReadOptions(on_bad_row="skip"), report=report)
    assert list(records) == [(1, {"text": "a cat", "n": 1}), (3, {"text": "rain", "n": 3})]
    assert report.skipped == {"not UTF-8": 1}


def test_blank_lines_between_json_rows_may_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n \n{"a": 2}\n\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: blank line"):
        list(Records(path))
    assert list(Records(path, ReadOptions(skip_blank=True))) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_bad_row": "ignore"}, "allowed: 'error', 'skip'"),
        ({"max_line_bytes": 0}, "max_line_bytes is 0; it must be at least 1"),
        ({"columns": ["a", "a"]}, "names a column twice"),
        ({"columns": ["a", "b"], "label": "b"}, "is among the texts"),
        ({"format": "tvs"}, "did you mean 'tsv'"),
    ],
)
def test_options_that_are_not_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReadOptions(**options)
