"""Rows of valid files."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.lines import read_lines
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.records import read_records
from simcse_kit.errors import DataError
from tests.reading import training_rows


def rows(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return training_rows(path, **options)


@pytest.mark.parametrize(
    "content",
    ["a\nb c\n", "a\nb c", "\ufeffa\r\nb c\r\n", " a\t\n  b c \n\n", "a\nb c\n\n \n\r\n"],
)
def test_txt(tmp_path, content):
    assert rows(tmp_path, "a.txt", content) == [("a",), ("b c",)]


def test_only_newlines_end_a_line(tmp_path):
    text = "a\u2028b\x85c\x0bd\x0ce"
    assert rows(tmp_path, "a.txt", f"{text}\n") == [(text,)]
    assert rows(tmp_path, "a.tsv", f"text\n{text}\n") == [(text,)]
    assert rows(tmp_path, "a.csv", f"text\n{text}\n") == [(text,)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sent0", ("a",)),
        ("text", ("a",)),
        ("sentence", ("a",)),
        ("sent0,sent1", ("a", "b")),
        ("sent1,sent0", ("b", "a")),
        ("sentence1,sentence2", ("a", "b")),
        ("anchor,positive", ("a", "b")),
        ("sent0,sent1,hard_neg", ("a", "b", "c")),
        ("sent0,hard_neg,sent1", ("a", "c", "b")),
        ("sent0,sent1,hard_neg,hard_neg1,hard_neg_2", ("a", "b", "c", "d", "e")),
        ("anchor,positive,negative_1,negative_2", ("a", "b", "c", "d")),
    ],
)
def test_recognised_headers(tmp_path, header, expected):
    names = header.split(",")
    values = list("abcde"[: len(names)])
    for name, separator in (("x.csv", ","), ("x.tsv", "\t")):
        text = separator.join(names) + "\n" + separator.join(values) + "\n"
        assert rows(tmp_path, name, text) == [expected]
    assert rows(tmp_path, "x.jsonl", json.dumps(dict(zip(names, values, strict=True)))) == [
        expected
    ]
    pq.write_table(
        pa.table({n: [v] for n, v in zip(names, values, strict=True)}), tmp_path / "x.parquet"
    )
    assert training_rows(tmp_path / "x.parquet") == [expected]


def test_columns_by_name_and_by_position(tmp_path):
    text = "id,hypothesis,premise\n1,h,p\n"
    assert rows(tmp_path, "a.csv", text, columns=("premise", "hypothesis")) == [("p", "h")]
    assert rows(tmp_path, "a.csv", text, columns=("2", "1")) == [
        ("premise", "hypothesis"),
        ("p", "h"),
    ]
    line = '{"p": "a", "q": "b", "n": ["c", null, "d"], "other": 3}\n'
    assert rows(tmp_path, "a.jsonl", line, columns=("p", "q", "n")) == [("a", "b", "c", "d")]


def test_csv_quoting_and_line_numbers(tmp_path):
    text = 'sent0,sent1\r\n"a, ""b""\nc\r\nd",e\r\nf,g\r\n'
    assert rows(tmp_path, "a.csv", text) == [('a, "b"\nc\r\nd', "e"), ("f", "g")]
    assert [line for line, _ in read_records(tmp_path / "a.csv")] == [1, 2, 5]


def test_csv_field_beyond_the_limit_of_the_csv_module(tmp_path):
    long = "y" * 300_000
    assert rows(tmp_path, "a.csv", f"text\n{long}\n") == [(long,)]


def test_tsv_quotes_are_text(tmp_path):
    text = 'sent0\tsent1\n"a\tb"\n\'c\t"d" "\n'
    assert rows(tmp_path, "a.tsv", text) == [('"a', 'b"'), ("'c", '"d" "')]


def test_ragged_negatives(tmp_path):
    header = ["sent0", "sent1", "hard_neg", "hard_neg1"]
    table = [header, ["a", "b", "", "n"], ["c", "d", "m"], ["e", "f", "m", "n"]]
    wanted = [("a", "b", "n"), ("c", "d", "m"), ("e", "f", "m", "n")]
    for name, separator in (("x.csv", ","), ("x.tsv", "\t")):
        text = "".join(separator.join(row) + "\n" for row in table)
        assert rows(tmp_path, name, text) == wanted
    lines = [
        {"sent0": "a", "sent1": "b", "hard_neg": ["", "n"]},
        {"sent0": "c", "sent1": "d", "hard_neg": "m"},
        {"sent0": "e", "sent1": "f", "hard_neg": "m", "hard_neg1": ["n", None]},
    ]
    assert rows(tmp_path, "x.jsonl", "".join(json.dumps(x) + "\n" for x in lines)) == wanted
    columns = {"anchor": list("ace"), "positive": list("bdf")}
    negatives = [["n"], ["m", None, " "], ["m", "n"]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({**columns, "negatives": pa.array(negatives, kind)}), path)
        assert training_rows(path) == wanted


def test_parquet_dictionary_column(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()}), path)
    assert training_rows(path) == [("a",), ("b",), ("a",)]


def test_read_records_gives_the_header_and_leaves_the_count_to_the_caller(tmp_path):
    path = tmp_path / "dev.csv"
    path.write_text('4.5\ta "b\tc\n\n1\td\te\n', encoding="utf-8")
    report = ReadReport()
    options = ReadOptions(format="tsv", on_bad_row="skip")
    found = list(read_records(path, options, report=report))
    assert found == [(1, ["4.5", 'a "b', "c"]), (3, ["1", "d", "e"])]
    assert report == ReadReport(0, {"blank line": 1}, {"blank line": f"{path}:2"})


def test_read_lines_may_keep_blank_lines(tmp_path):
    path = tmp_path / "gold"
    path.write_bytes(b"1\n\n2\n\n")
    assert list(read_lines(path, keep_blank=True)) == ["1", "", "2", ""]
    with pytest.raises(DataError, match=":2: blank line"):
        list(read_lines(path))


def test_endless_line_is_not_held_in_memory(tmp_path):
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b"a\n")
        for _ in range(64):
            stream.write(b"x" * 1_000_000)
        stream.write(b"\nb\n")
    report = ReadReport()
    tracemalloc.start()
    found = training_rows(path, report, on_bad_row="skip", max_line_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [("a",), ("b",)]
    assert report.first_skipped == {"line too long": f"{path}:2"}
    assert peak < 8_000_000


def test_line_limit_is_exact(tmp_path):
    for end in ("\n", "\r\n", ""):
        assert rows(tmp_path, "a.txt", "x" * 50 + end, max_line_bytes=50) == [("x" * 50,)]
        with pytest.raises(DataError, match="longer than 50"):
            rows(tmp_path, "a.txt", "x" * 51 + end, max_line_bytes=50)


def test_import_is_light():
    code = (
        "import sys, simcse_kit.data.corpus; "
        "assert not {'datasets', 'pyarrow', 'torch', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
