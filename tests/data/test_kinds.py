"""Rows with a label, and documents."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from simcse_kit.data.collate import Collator
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.readers import Example
from simcse_kit.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


LABELLED = [Example(("a cat", "a dog"), 1.0), Example(("a, b", "c"), -0.5)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def labelled_file(folder: Path, kind: str) -> Path:
    rows = [{"sent0": e.texts[0], "sent1": e.texts[1], "y": e.label} for e in LABELLED]
    if kind == "jsonl":
        return write(folder / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
        return folder / "x.parquet"
    mark, quote = (",", '"') if kind == "csv" else ("\t", "")
    lines = [mark.join(("y", "sent1", "sent0"))]
    lines += [
        mark.join((str(r["y"]), str(r["sent1"]), f"{quote}{r['sent0']}{quote}")) for r in rows
    ]
    return write(folder / f"x.{kind}", "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_labels_of_every_format(tmp_path: Path, kind: str) -> None:
    corpus = Corpus.build(labelled_file(tmp_path, kind), label="y")
    assert (corpus.kind, corpus.negatives) == ("labelled", 0)
    assert list(corpus) == LABELLED
    assert corpus.labels() == [-0.5, 1.0]


def test_labels_by_position_and_from_the_cache(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "0,one,two\n1,three,four\n")
    for _ in range(2):
        corpus = Corpus.build(file, columns=["1", "2"], label="0")
        assert list(corpus) == [Example(("one", "two"), 0.0), Example(("three", "four"), 1.0)]
    # The same file without a label is another corpus.
    assert Corpus.build(file, columns=["1", "2"]).kind == "pairs"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "sent0,sent1,y\na,b,high\n",
            {"label": "y"},
            r"x\.csv:2: the label is 'high'; write a fin",
        ),
        ("sent0,sent1,y\na,b,\n", {"label": "y"}, r"x\.csv:2: the label is ''"),
        ("sent0,sent1,y\na,b,nan\n", {"label": "y"}, r"x\.csv:2: the label is 'nan'"),
        ("sent0,sent1,y\na,,1\n", {"label": "y"}, r"x\.csv:2: the positive .* is blank"),
        ("sent0,sent1,y\na,b\n", {"label": "y"}, r"x\.csv:2: ragged row: expected 3"),
        ("sent0,sent1,y\na,b,1\n", {"label": "z"}, "no column 'z'|is not one of"),
        ("text,y\na,1\n", {"label": "y"}, "two texts and a label, but text are 1"),
        ("a,b,c,y\n1,2,3,4\n", {"label": "y", "columns": ["a", "b", "c"]}, "names 3"),
        ("a,b,y\n1,2,3\n", {"label": "a", "columns": ["a", "b"]}, "is among the texts"),
        ("a,b,y\n1,2,3\n", {"label": "y", "columns": ["0", "1"]}, "give names for both"),
        ("a,b,y\n1,2,3\n", {"label": " "}, "data.label is empty"),
    ],
)
def test_bad_labels_are_named(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    file = write(tmp_path / "x.csv", text)
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        Corpus.build(file, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_bad_labels_are_skipped_and_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", '{"sent0":"a","sent1":"b","y":true}\n')
    with pytest.raises(DataError, match="the label is 'True'"):
        Corpus.build(file, label="y")
    file = write(tmp_path / "y.csv", "sent0,sent1,y\na,b,high\nc,d,2\n")
    corpus = Corpus.build(file, label="y", on_bad_row="skip")
    assert list(corpus) == [Example(("c", "d"), 2.0)]
    assert corpus.report.skipped == {"bad label": 1}


def test_a_text_file_has_no_label(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'y'; leave out data\.label"):
        Corpus.build(write(tmp_path / "x.txt", "a\n"), label="y")


DOCUMENTS = "\n1a\n1b\n1c\n\n\nalone\n\n2a\n2b\n"


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_rows_of_documents_end_where_the_document_ends(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(
        gzip.compress(DOCUMENTS.encode()) if name.endswith("gz") else DOCUMENTS.encode()
    )
    corpus = Corpus.build(file, documents=2)
    assert (corpus.kind, corpus.negatives) == ("documents", 2)
    assert [row.texts for row in corpus] == [("1a", "1b", "1c"), ("1b", "1c"), ("2a", "2b")]
    near = Corpus.build(file, documents=1)
    assert [row.texts for row in near] == [("1a", "1b"), ("1b", "1c"), ("2a", "2b")]


def test_a_bad_line_ends_a_document(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(b"a\nb\n\xff\nc\nd\n")
    with pytest.raises(DataError, match=r"x\.txt:3: not UTF-8"):
        Corpus.build(file, documents=3)
    corpus = Corpus.build(file, documents=3, on_bad_row="skip")
    assert [row.texts for row in corpus] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("x.txt", "a\n\nb\n", {}, "no document has two sentences"),
        ("x.txt", "", {}, "is empty"),
        ("x.csv", "text\na\n", {}, r"is for \.txt files.*this is a \.csv file"),
        ("x.txt", "a\nb\n", {"label": "y"}, "documents have no columns"),
    ],
)
def test_what_are_no_documents(
    tmp_path: Path, name: str, text: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Corpus.build(write(tmp_path / name, text), documents=2, **options)  # type: ignore[arg-type]


def test_the_collator_hands_labels_on() -> None:
    collate = Collator(lambda texts: ([[len(text)] for text in texts], 0), 0, (0, 1))
    assert collate(LABELLED)["labels"].tolist() == [1.0, -0.5]
    assert "labels" not in collate([Example(("a", "b"))])
