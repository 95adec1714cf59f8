"""Graded pairs: recognised headers, every format, STSBenchmark's files, and scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.data.collate import Collator
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.graded import SCORE_NAMES, assumed_scale, graded_columns
from simcse_kit.data.in_memory import write_rows
from simcse_kit.data.prepare.mine import read_anchors
from simcse_kit.data.prepare.split import split
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Example, file_kind, read_all_texts
from simcse_kit.data.records import Records
from simcse_kit.errors import DataError
from tests.reading import training_rows

ROWS = [
    {"sentence1": "a cat", "sentence2": "the cat", "score": 4.5},
    {"sentence1": "a dog", "sentence2": "it rains", "score": 0.0},
]
EXAMPLES = [Example(("a cat", "the cat"), 4.5), Example(("a dog", "it rains"), 0.0)]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


def put(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def written(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if kind == "json":
        return put(path, json.dumps(rows))
    if kind == "jsonl":
        return put(path, "".join(json.dumps(row) + "\n" for row in rows))
    mark = "," if kind == "csv" else "\t"
    lines = [mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]
    return put(path, "\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_two_texts_and_a_score_are_graded_pairs_in_every_format(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    assert file_kind(path) == "labelled"
    corpus = Corpus.build(path)
    assert list(corpus) == EXAMPLES
    assert corpus.labels() == [0.0, 4.5]
    # Without the score they are pairs, as the user asked.
    assert file_kind(path, ReadOptions(columns=["sentence1", "sentence2"])) == "pairs"


@pytest.mark.parametrize("name", sorted(SCORE_NAMES))
def test_a_score_has_one_of_several_names(tmp_path: Path, name: str) -> None:
    rows = [{name.capitalize(): row["score"], **row} for row in ROWS]
    for row in rows:
        del row["score"]
    assert training_rows(written(tmp_path, "csv", rows))[0] == ("a cat", "the cat", "4.5")


def test_columns_of_origin_are_left_out(tmp_path: Path) -> None:
    rows = [{"": n, "genre": "news", "year": 2012, **row} for n, row in enumerate(ROWS)]
    assert list(Corpus.build(written(tmp_path, "tsv", rows))) == EXAMPLES
    sick = ["pair_ID", "sentence_A", "sentence_B", "entailment_label", "relatedness_score"]
    assert graded_columns(sick) == ("sentence_A", "sentence_B", "relatedness_score")


@pytest.mark.parametrize(
    "header", ["sentence1,sentence2,score,split", "sentence1,sentence2", "sent0,sent1,hard_neg"]
)
def test_other_headers_are_not_graded_pairs(header: str) -> None:
    assert graded_columns(header.split(",")) is None


def test_rows_of_all_splits_are_used_only_on_request(tmp_path: Path) -> None:
    path = written(tmp_path, "tsv", [{"split": "test", **row} for row in ROWS])
    with pytest.raises(DataError, match="rows of every split") as caught:
        training_rows(path)
    assert "--columns sentence1,sentence2 --label score" in str(caught.value)
    assert len(training_rows(path, columns=["sentence1", "sentence2"], label="score")) == 2


def test_files_of_stsbenchmark_are_read_as_they_are(tmp_path: Path) -> None:
    path = put(
        tmp_path / "sts-train.csv",
        'main-news\tMSRpar\t2012\t0001\t4.500\ta "cat\tthe cat\n'
        "main-news\tMSRpar\t2012\t0002\t0.000\ta dog, or two\tit rains\tan owner\ta licence\n",
    )
    expected = [Example(('a "cat', "the cat"), 4.5), Example(("a dog, or two", "it rains"), 0.0)]
    assert list(Corpus.build(path)) == expected
    assert list(Corpus.build(path.rename(tmp_path / "a.tsv"))) == expected
    short = path.with_name("b.csv")
    put(short, "g\tf\ty\t1\t4.5\ta\tb\ng\tf\ty\t1\t4.5\ta\n")
    with pytest.raises(DataError, match=r"b\.csv:2: ragged row: expected 7 fields, found 6"):
        Corpus.build(short)


def test_columns_and_positions_still_name_the_score(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", [{**row, "label": 1} for row in ROWS])
    message = "several columns of scores: score, label.*--columns sentence1,sentence2 --label score"
    with pytest.raises(DataError, match=message):
        training_rows(path)
    assert training_rows(path, label="score")[0] == ("a cat", "the cat", "4.5")
    named = {"columns": ["sentence1", "sentence2"], "label": "label"}
    assert training_rows(path, **named)[0] == ("a cat", "the cat", "1")
    put(path, "4.5,a cat,the cat\n0,a dog,it rains\n")
    assert training_rows(path, columns=["1", "2"], label="0")[0] == ("a cat", "the cat", "4.5")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_score_with_one_text_is_explained(tmp_path: Path, kind: str) -> None:
    rows = [{"review": "a cat", "score": 4.5}]
    path = written(tmp_path, kind, rows)
    with pytest.raises(DataError, match="scores in column 'score' but only one column") as caught:
        training_rows(path)
    assert "\n" not in str(caught.value)
    assert "with --columns review" in str(caught.value)
    assert training_rows(path, columns=["review"]) == [("a cat",)]


@pytest.mark.parametrize("score", ["high", "nan", "inf", "", "3,5"])
def test_scores_that_are_no_numbers_are_refused_or_skipped(tmp_path: Path, score: str) -> None:
    path = put(tmp_path / "a.tsv", f"sentence1\tsentence2\tscore\na\tb\t{score}\nc\td\t2\n")
    with pytest.raises(DataError, match=r"a\.tsv:2: the label is .*--on-bad-row skip") as caught:
        training_rows(path)
    assert "\n" not in str(caught.value)
    assert training_rows(path, on_bad_row="skip") == [("c", "d", "2")]


def test_rows_in_memory_are_graded_pairs() -> None:
    tuples = [(row["sentence1"], row["sentence2"], row["score"]) for row in ROWS]
    for rows in (tuples, ROWS):
        given = write_rows(rows)
        assert list(Corpus.build(given.path, ReadOptions(label=given.label))) == EXAMPLES


def test_the_data_tools_keep_to_the_texts(tmp_path: Path) -> None:
    path = written(tmp_path, "csv", ROWS * 20)
    assert Records(path).text_columns() == ("sentence1", "sentence2")
    assert set(read_all_texts(path)) == {"a cat", "the cat", "a dog", "it rains"}
    rows = [{**row, "sentence1": f"cat {n}"} for n, row in enumerate(ROWS * 10)]
    split(written(tmp_path, "csv", rows), tmp_path / "parts")
    assert (tmp_path / "parts" / "train.csv").read_text().startswith("sentence1,sentence2,score\n")
    with pytest.raises(DataError, match="graded pairs are not all positives"):
        read_anchors(path)
    assert read_anchors(path, ReadOptions(columns=["sentence1"])).positives is None


@pytest.mark.parametrize(
    ("scores", "scale"),
    [
        ([0, 2.5, 4.8], (0, 5)),
        ([1, 3, 5], (1, 5)),
        ([0, 1], (0, 1)),
        ([0.1, 0.95], (0, 1)),
        ([-0.8, 0.9], (-1, 1)),
        ([0, 9.5], (0, 10)),
        ([3, 97], (0, 100)),
        ([0, 1, 2, 3], (0, 3)),
        ([-3, 7], (-3, 7)),
        ([0, 1, 4], (0, 4)),
        ([12, 250], (12, 250)),
    ],
)
def test_the_scale_is_guessed_from_the_scores(
    scores: list[float], scale: tuple[float, float]
) -> None:
    assert assumed_scale(scores) == scale


def test_a_batch_holds_scores_from_0_to_1() -> None:
    def tokenize(texts: Any) -> tuple[list[list[int]], int]:
        return [[1, 2] for _ in texts], 0

    rows = [Example(("a", "b"), score) for score in (1.0, 2.0, 5.0)]
    collator = Collator(tokenize, 0, (0, 1), label_scale=[1, 5])
    assert collator(rows)["labels"].tolist() == [0.0, 0.25, 1.0]
    assert Collator(tokenize, 0, (0, 1))(rows)["labels"].tolist() == [1.0, 2.0, 5.0]
