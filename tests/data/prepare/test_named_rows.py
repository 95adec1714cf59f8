"""Rows with all their values, there and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.data.prepare.named_rows import Records
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.readers import read_texts
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
    kind, texts = read_texts(tmp_path / name, columns=["sent0", "sent1"])
    assert (kind, list(texts)) == ("pairs", [(r["sent0"], r["sent1"]) for r in ROWS])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_takes_no_value_that_its_first_row_has_not(tmp_path: Path) -> None:
    message = r"row 2 has 'id', which the first row has not .* write \.jsonl"

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
    assert records.text_columns(["sent0", "negatives"]) == ("sent0", "negatives")
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
        list(Records(tmp_path / "x.csv", **options))


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
        ("no/a.csv", "there is no folder"),
        ("folder.csv", "is a folder"),
        ("there.csv", "is there already; give another name, or --overwrite"),
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
