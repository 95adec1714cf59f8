"""FlagEmbedding files, arrays, compression, numbers as text; no reader loses a value."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import time
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.data import json_records
from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import file_kind
from simcse_kit.data.records import Records
from simcse_kit.errors import DataError
from tests.reading import training_rows

FLAG = [
    {"query": "q1", "pos": ["a", "b"], "neg": ["x", "y"], "pos_scores": [1, 2], "prompt": "p"},
    {"query": "q2", "pos": ["c"], "neg": [], "type": "s"},
    {"query": "q3", "pos": "d", "neg": "z"},
    {"query": "q4", "pos": ["e"]},
]
FLAG_ROWS = [
    ("q1", "a", "x", "y"),
    ("q1", "b", "x", "y"),
    ("q2", "c"),
    ("q3", "d", "z"),
    ("q4", "e"),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        training_rows(path, **options)
    return str(caught.value)


# ------------------------------------------------------------------ FlagEmbedding


@pytest.mark.parametrize("columns", [None, ("query", "pos", "neg")])
def test_flag_embedding(
    tmp_path: Path, columns: tuple[str, ...] | None, caplog: pytest.LogCaptureFixture
) -> None:
    for name, content in (("a.jsonl", lines(FLAG)), ("a.json", json.dumps(FLAG, indent=1))):
        path = put(tmp_path / name, content)
        with caplog.at_level("INFO"):
            assert training_rows(path, columns=columns) == FLAG_ROWS
        assert file_kind(path, ReadOptions(columns=columns)) == "triplets"
    said = [text for text in caplog.messages if "are not used" in text]
    assert said[0].endswith("the keys pos_scores, prompt, type are not used")
    corpus = Corpus.build(tmp_path / "a.jsonl", ReadOptions(columns=columns))
    assert (corpus.kind, corpus.negatives) == ("triplets", 2)
    assert [row.texts for row in corpus] == FLAG_ROWS


def test_flag_embedding_without_any_negative_is_pairs(tmp_path: Path) -> None:
    for records in (
        [{"query": "q", "pos": ["a", "b"], "neg": []}, {"query": "r", "pos": ["c"], "neg": [" "]}],
        [{"query": "q", "pos": ["a", "b"]}, {"query": "r", "pos": ["c"]}],
    ):
        path = put(tmp_path / "a.jsonl", lines(records))
        assert file_kind(path) == "pairs"
        assert training_rows(path) == [("q", "a"), ("q", "b"), ("r", "c")]
    late = put(tmp_path / "b.jsonl", lines([{"query": "q", "pos": ["a"], "neg": []}, FLAG[0]]))
    assert file_kind(late) == "triplets"


def test_flag_embedding_as_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {"query": ["q", "r"], "pos": [["a", "b"], ["c"]], "neg": [["x"], []]}
    pq.write_table(pa.table(columns | {"pos_scores": [[1, 2], [3]]}), path)
    assert file_kind(path) == "triplets"
    assert training_rows(path) == [("q", "a", "x"), ("q", "b", "x"), ("r", "c")]
    del columns["neg"]
    pq.write_table(pa.table(columns), path)
    assert (file_kind(path), len(training_rows(path))) == ("pairs", 3)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"query": "q", "pos": []}, "'pos' is an empty list"),
        ({"query": "q", "pos": ["a", " "]}, "positive (second column) is blank"),
        ({"query": "q", "pos": ["a", 3]}, "'pos' is a number"),
        ({"query": "q", "pos": ["a"], "neg": [{}]}, "'neg' is an object"),
        ({"query": ["q"], "pos": ["a"]}, "'query' is a list"),
        ({"query": "q"}, "no key 'pos'"),
        ({"query": "q", "pos": ["a"], "other": 1}, "--columns query,pos,neg"),
    ],
)
def test_flag_embedding_with_a_bad_row(tmp_path: Path, record: Any, words: str) -> None:
    path = put(tmp_path / "a.jsonl", lines([FLAG[0], record]))
    message = failure(path)
    assert message.startswith(f"{path}:2: ")
    assert words in message
    if "--columns" in words:
        assert training_rows(path, columns=("query", "pos", "neg"))[2] == ("q", "a")


def test_curation_reads_flag_embedding_too(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", lines(FLAG)), ("a.json", json.dumps(FLAG))):
        records = Records(put(tmp_path / name, content))
        columns = records.text_columns()
        assert [row for _, _, row in records.with_texts(columns)][:2] == [
            ("q1", "a", "b", "x", "y"),
            ("q2", "c"),
        ]


# ------------------------------------------------------------------ arrays


def test_arrays_of_objects_and_of_strings(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", '\ufeff [\n"a b",\n "caf\\u00e9"\n]\n ')
    assert training_rows(path) == [("a b",), ("café",)]
    rows = [{"anchor": "a", "positive": "b", "negatives": ["c"]}] * 2
    path = put(tmp_path / "b.json", json.dumps(rows, indent=2))
    assert training_rows(path) == [("a", "b", "c")] * 2


def test_a_bad_item_of_an_array_has_its_line(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.json", '[{"text": "a"},\n\n{"text": 3}, {"text": "b\\ud800"},\n 7,"c"]'
    )
    assert failure(path).startswith(f"{path}:3: 'text' is a number")
    report = ReadReport()
    assert training_rows(path, report, on_bad_row="skip") == [("a",), ("c",)]
    assert report.first_skipped == {
        "value is not text": f"{path}:3",
        "lone surrogate": f"{path}:3",
        "not a JSON object": f"{path}:4",
    }


def test_arrays_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MAX_ARRAY_BYTES", 1_000_000)
    path = tmp_path / "a.json.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'["' + b"a" * 20_000_000 + b'"]')
    assert "more than 1 MB in one JSON array" in failure(path)
    assert "write it as .jsonl" in failure(path)


def test_the_remedy_for_an_array_called_jsonl_is_its_suffix(tmp_path: Path) -> None:
    for content in ('[{"text": "a"}]', '[\n{"text": "a"}\n]'):
        path = put(tmp_path / "a.jsonl", content)
        assert "rename it to .json" in failure(path)
        assert training_rows(path.rename(tmp_path / "b.json")) == [("a",)]
    path = put(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n')
    assert "rename the file to .jsonl" in failure(path)
    assert training_rows(path.rename(tmp_path / "c.jsonl")) == [("a",), ("b",)]


# ------------------------------------------------------------------ compression


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed(tmp_path: Path, suffix: str, pack: Any) -> None:
    contents = {
        "a.txt": ("one\ntwo\n", [("one",), ("two",)]),
        "a.csv": ("sent0,sent1\na,b\n", [("a", "b")]),
        "a.json": ('["a"]', [("a",)]),
    }
    for name, (content, expected) in contents.items():
        path = put(tmp_path / (name + suffix), pack(content.encode()))
        assert training_rows(path) == expected
    # Two streams one after the other are one text.
    assert training_rows(put(path.with_name("b.txt" + suffix), pack(b"a\n") + pack(b"b\n"))) == [
        ("a",),
        ("b",),
    ]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_bomb_is_refused_by_its_first_megabyte(tmp_path: Path, suffix: str) -> None:
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[suffix]
    path = tmp_path / f"bomb.txt{suffix}"
    options = {"preset": 0} if suffix == ".xz" else {"compresslevel": 1}
    with opener(path, "wb", **options) as file:
        for _ in range(50):
            file.write(b"a" * 1_000_000)
    began = time.perf_counter()
    assert "longer than 1000000 bytes; split it" in failure(path)
    refused = time.perf_counter() - began
    began = time.perf_counter()
    with opener(path, "rb") as file:
        while file.read(1 << 20):
            pass
    assert refused < max(0.1, (time.perf_counter() - began) / 2)


def test_xz_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    # The head of a stream whose dictionary has 1.5 GB; nothing has to be allocated to make it.
    head = bytearray(lzma.compress(b"a\n", preset=0))
    at = head.index(b"\x21\x01", 12)
    head[at + 2] = 39
    size = (head[12] + 1) * 4
    head[12 + size - 4 : 12 + size] = zlib.crc32(head[12 : 12 + size - 4]).to_bytes(4, "little")
    assert "damaged xz data after line 0 (Memory usage limit exceeded)" in failure(
        put(tmp_path / "a.txt.xz", bytes(head))
    )


# ------------------------------------------------------------------ numbers


def graded(folder: Path, kind: str) -> Path:
    rows = [{"sent0": f"a {n}", "sent1": f"b {n}", "hard_neg": str(n % 6)} for n in range(12)]
    if kind == "jsonl":
        return put(folder / "g.jsonl", lines(rows))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "g.parquet")
        return folder / "g.parquet"
    mark = "," if kind == "csv" else "\t"
    table = [mark.join(rows[0])] + [mark.join(row.values()) for row in rows]
    return put(folder / f"g.{kind}", "\n".join(table) + "\n")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_of_numbers_is_no_text(tmp_path: Path, kind: str) -> None:
    path = graded(tmp_path, kind)
    for on_bad_row in ("error", "skip"):
        message = failure(path, on_bad_row=on_bad_row)
        assert message.startswith(f"{path}: column 'hard_neg' holds numbers only, such as '0'")
        assert "--columns sent0,sent1 --label hard_neg --method graded" in message
    assert "column 'hard_neg'" in failure(path, columns=("hard_neg", "sent0"))


def test_some_numbers_among_texts_are_sentences(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "text\n1\n2\n3\n42\nfour\n5\n")
    assert len(training_rows(path)) == 6
    assert len(training_rows(put(tmp_path / "a.csv", "text\n1\n2\n"))) == 2
    assert len(training_rows(put(tmp_path / "a.txt", "1\n2\n3\n4\n"))) == 4  # no columns
    path = put(tmp_path / "b.csv", "a,b,y\nx,1,3\ny,z,4\nz,3,5\n")
    assert len(list(Corpus.build(path, ReadOptions(columns=["a", "b"], label="y")))) == 3


def test_a_score_among_the_text_columns_is_explained(tmp_path: Path) -> None:
    row = '{"sentence1": "a", "sentence2": "b", "score": 3}\n'
    message = failure(put(tmp_path / "b.jsonl", row), columns=("sentence1", "sentence2", "score"))
    assert "'score' is a number; to train on pairs with scores" in message
    assert "--columns sentence1,sentence2 --label score" in message
    assert "quote it" not in message


# ------------------------------------------------------------------ nothing is lost


def test_comment_signs_quotes_and_separators_of_unicode_are_text(tmp_path: Path) -> None:
    sentences = [
        "# a heading",
        "// b",
        "; c",
        "-- d",
        "'e",
        '"f" g',
        "h\u2028i",
        "j\x85k",
        "\u200b",
    ]
    assert training_rows(put(tmp_path / "a.txt", "\n".join(sentences))) == [(s,) for s in sentences]
    assert training_rows(put(tmp_path / "a.tsv", "\n".join(["text", *sentences]))) == [
        (s,) for s in sentences
    ]


@pytest.mark.parametrize(
    "values", [["a", None], ["a", float("nan")], [["a"], ["b"]], [{"a": 1}, {"a": 2}]]
)
def test_cells_without_a_text_are_refused(tmp_path: Path, values: list[Any]) -> None:
    path = put(tmp_path / "a.jsonl", lines([{"text": value} for value in values]))
    assert "not a string" in failure(path)
    if not isinstance(values[1], float):
        pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
        message = failure(tmp_path / "a.parquet")
        assert "not a string" in message or "has type" in message


def test_documents_of_one_sentence_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "a\nb\n\nalone\n\n\nc\nd\ne\n\nlast\n")
    for _ in range(2):  # read, and found in the cache
        corpus = Corpus.build(path, ReadOptions(documents=1))
        assert [row.texts for row in corpus] == [("a", "b"), ("c", "d"), ("d", "e")]
        assert corpus.report.skipped == {"document of one sentence": 2}
        assert corpus.report.first_skipped == {"document of one sentence": f"{path}:4"}


# ------------------------------------------------------------------ many columns


def wide(folder: Path, kind: str, count: int) -> Path:
    names = [f"c{number}" for number in range(count)]
    if kind == "csv":
        return put(folder / "a.csv", f"{','.join(names)}\n{','.join('x' * count)}\n")
    twice = f', "{names[-1]}": "y"' if kind == "repeated" else ""
    pairs = ", ".join(f'"{name}": "x"' for name in names)
    return put(folder / "a.jsonl", "{" + pairs + twice + "}\n")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "repeated"])
def test_many_columns_are_refused_quickly(tmp_path: Path, kind: str) -> None:
    path = wide(tmp_path, kind, 50_000)
    began = time.perf_counter()
    failure(path)
    failure(path, columns=("c1", "nothing"))
    with pytest.raises(DataError):
        Records(path).text_columns()
    # Comparing each name with each other took 10 s and more.
    assert time.perf_counter() - began < 5
