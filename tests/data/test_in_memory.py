"""Rows given as Python objects become the corpus that a file with the same rows becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.data.corpus import Corpus
from simcse_kit.data.in_memory import write_rows
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.errors import DataError

TEXTS = ["a cat", "a dog\nand a bird", "ein Hündchen"]
PAIRS = [("a cat", "cats"), ["a dog", "dogs"]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


def corpus_of(rows: Any) -> Corpus:
    written = write_rows(rows)
    return Corpus.build([written.path], ReadOptions(label=written.label))


def texts_of(rows: Any) -> list[tuple[str, ...]]:
    return [row.texts for row in corpus_of(rows)]


@pytest.mark.parametrize("wrap", [list, tuple, iter], ids=["list", "tuple", "generator"])
def test_texts(wrap: Any) -> None:
    corpus = corpus_of(wrap(TEXTS))
    assert corpus.kind == "texts"
    assert [row.texts[0].split() for row in corpus] == [text.split() for text in TEXTS]


def test_pairs_triplets_and_labelled_pairs() -> None:
    assert texts_of(PAIRS) == [tuple(pair) for pair in PAIRS]
    triplets = [("a", "b", "c"), ("d", "e", "f", "g")]
    assert corpus_of(triplets).kind == "triplets"
    assert texts_of(triplets) == triplets
    labelled = corpus_of([("a", "b", 1), ("c", "d", np.float32(0.5))])
    assert labelled.kind == "labelled"
    assert [(row.texts, row.label) for row in labelled] == [(("a", "b"), 1.0), (("c", "d"), 0.5)]


def test_dicts_and_a_dataset_have_named_columns() -> None:
    from datasets import Dataset

    rows = [{"anchor": "a cat", "positive": "cats"}, {"anchor": "a dog", "positive": "dogs"}]
    assert texts_of(rows) == texts_of(Dataset.from_list(rows)) == texts_of(PAIRS)
    assert texts_of(Dataset.from_dict({"text": ["a cat", "a dog"]})) == [("a cat",), ("a dog",)]


def test_equal_rows_are_the_same_file_and_corpus(tmp_path: Path) -> None:
    first, second = write_rows(PAIRS), write_rows(iter(PAIRS))
    assert first.path == second.path
    file = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"anchor": a, "positive": b}) for a, b in PAIRS]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert Corpus.build([file]).fingerprint == Corpus.build([first.path]).fingerprint
    assert not [path for path in first.path.parent.iterdir() if path.name.startswith("tmp")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"the data has no rows; give at least 2"),
        ({"text": ["a"]}, r"is a dict with the keys text; give rows, or one split"),
        (["a", 5], r"row 2 of the data is 5; give a string, a tuple of two strings"),
        ([("a", None)], r"row 1 of the data is \('a', None\); give"),
        ([("a", "b", True)], r"row 1 of the data is \('a', 'b', True\); give"),
        (["a", ("a", "b")], r"row 2 of the data is a pair but row 1 is a text; give rows of one"),
        (["a", "b\ud800"], r"row 2 of the data is not valid Unicode"),
        ([{"text": {1}}], r"row 1 of the data has .*; give strings and numbers"),
    ],
)
def test_rows_that_cannot_be_written_are_named(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_rows(rows)
    assert not list(Path.cwd().glob("*.jsonl"))


def test_names_of_files_are_not_taken_for_sentences(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"is the name of a file; give files as pathlib\.Path"):
        write_rows([str(file)])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a", " "], r"^row 2 of the data: "),
        ([{"anchor": "a", "positive": "b"}, {"anchor": "c"}], r"^row 2 of the data: "),
        ([{"what": "a"}], r"^row 1 of the data: .*what"),
    ],
)
def test_errors_of_the_reader_name_the_row(rows: Any, message: str) -> None:
    written = write_rows(rows)
    with pytest.raises(DataError, match=message) as caught, written.errors_by_row():
        Corpus.build([written.path])
    assert "jsonl" not in str(caught.value)


def test_errors_about_other_files_stay(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"other\.txt"),
        write_rows(TEXTS).errors_by_row(),
    ):
        Corpus.build([tmp_path / "other.txt"])
