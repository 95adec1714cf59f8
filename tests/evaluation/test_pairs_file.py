"""A user's graded pairs: forms, splits, and rows that are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import observed_scale
from simcse_kit.evaluation.pairs_file import load_pairs_file

RECORDS = [
    {"sentence1": "a b", "sentence2": "c d", "label": 1, "id": 1},
    {"sentence1": "e", "sentence2": "f", "label": 2.5, "id": 2},
    {"sentence1": "g", "sentence2": "h", "label": 4.5, "id": 3},
]
PLAIN = "1.0\ta b\tc d\n2.5\te\tf\n4.5\tg\th\n"


def write(tmp_path: Path, text: str, name: str = "dev.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dev.tsv", PLAIN),
        ("dev.tsv", "\ufeff" + PLAIN.replace("\n", "\r\n")),
        (
            "dev.tsv",
            "id\tSentence2\tscore\tsentence1\n1\tc d\t1.0\ta b\n2\tf\t2.5\te\n3\th\t4.5\tg\n",
        ),
        ("dev.csv", 'score,sentence1,sentence2\n1.0,"a  b",c d\n2.5,e,"f"\n4.5,g,h\n'),
        ("dev.csv", "1.0,a b,c d\n2.5,e,f\n4.5,g,h\n"),
        ("dev.csv", "label,Sentence1,sentence2,note\n1.0,a b,c d,x\n2.5,e,f,\n4.5,g,h,z\n"),
        ("dev.tsv", "sentence_A\tsentence_B\tsimilarity\na b\tc d\t1\ne\tf\t2.5\ng\th\t4.5\n"),
        ("dev.jsonl", "".join(json.dumps(row) + "\n" for row in RECORDS)),
        ("dev.json", json.dumps(RECORDS)),
        (
            "dev.jsonl",
            '{"text1": "a  b", "text2": "c d", "rating": "1.0"}\n'
            '{"text1": "e", "text2": "f", "rating": 2.5}\n'
            '{"text1": "g", "text2": "h", "rating": 4.5, "rest": [1]}\n',
        ),
        (
            "sts-dev.csv",
            "m\tf\ty\t1\t1.0\ta b\tc d\nm\tf\ty\t2\t2.5\te\tf\tx\ty\nm\tf\ty\t3\t4.5\tg\th\n",
        ),
    ],
)
def test_the_forms_give_the_same_pairs(tmp_path: Path, name: str, text: str) -> None:
    pairs = load_pairs_file(write(tmp_path, text, name))
    assert pairs.sentences1 == ["a b", "e", "g"]
    assert pairs.sentences2 == ["c d", "f", "h"]
    assert pairs.gold.tolist() == [1.0, 2.5, 4.5]
    assert pairs.scale == (0.0, 5.0)
    assert pairs.name == Path(name).stem


def test_parquet_records_may_have_a_split_and_rows_without_a_score(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{**row, "split": "dev", "vector": [0.5]} for row in RECORDS]
    rows += [{**rows[0], "split": "test"}, {**rows[0], "label": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "dev.parquet")
    pairs = load_pairs_file(tmp_path / "dev.parquet", "dev")
    assert (pairs.sentences1, pairs.gold.tolist()) == (["a b", "e", "g"], [1.0, 2.5, 4.5])
    assert "skipped 1 pairs without a score" in caplog.text


def test_a_given_scale_replaces_the_inferred_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, PLAIN)
    with caplog.at_level(logging.INFO):
        assert load_pairs_file(path).scale == (0.0, 5.0)
    assert "on a scale of 0 to 5; if it is another, give --scale LOWEST,HIGHEST" in caplog.text
    assert load_pairs_file(path, scale=(1.0, 7.0)).scale == (1.0, 7.0)
    with pytest.raises(DataError, match=r"dev\.tsv:3: score '4.5' is outside 1 to 4"):
        load_pairs_file(path, scale=(1.0, 4.0))


def test_quotes_in_tsv_and_benchmark_files_are_text(tmp_path: Path) -> None:
    text = PLAIN.replace("a b", '"a" b').replace("c d", '"c')
    assert load_pairs_file(write(tmp_path, text)).sentences2[0] == '"c'


SPLIT = "score\tsentence1\tsentence2\tsplit\n" + "".join(
    f"{i}\ta{i}\tb{i}\t{'dev' if i % 2 else 'test'}\n" for i in range(8)
)


def test_the_split_column_picks_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, SPLIT)
    assert len(load_pairs_file(path)) == 8
    with caplog.at_level(logging.INFO):
        assert load_pairs_file(path, "dev").sentences1 == ["a1", "a3", "a5", "a7"]
    assert "using the 4 rows of split 'dev', leaving 4" in caplog.text
    with pytest.raises(DataError, match="no row has split 'train'; splits: 'dev', 'test'"):
        load_pairs_file(path, "train")


def test_a_split_that_cannot_be_picked(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    with pytest.raises(DataError, match="has no column 'split'"):
        load_pairs_file(path, "dev")
    assert len(load_pairs_file(path, "dev", if_present=True)) == 3


def test_rows_without_a_score_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "\tfirst\trow\n" + PLAIN + "\tx\ty\n")
    with caplog.at_level(logging.WARNING):
        assert len(load_pairs_file(path)) == 3
    assert "skipped 2 pairs without a score" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.tsv", PLAIN + "3\tonly\n", r"d\.tsv:4: 2 fields; expected 3"),
        ("d.tsv", PLAIN + "3\ta\tb\tc\n", r"d\.tsv:4: 4 fields; expected 3"),
        ("d.tsv", PLAIN + "high\ta\tb\n", r"d\.tsv:4: score 'high' is not a number"),
        ("d.tsv", PLAIN + "nan\ta\tb\n", r"d\.tsv:4: score 'nan' is not a number"),
        ("d.tsv", PLAIN + "3\ta\t \n", r"d\.tsv:4: sentence2 is blank"),
        ("d.tsv", PLAIN + "3\t\tb\n", r"d\.tsv:4: sentence1 is blank"),
        ("d.tsv", "label\tleft\tright\n" + PLAIN, r"d\.tsv:1: .*'label'.*names the columns score"),
        ("d.tsv", "a\tb\tc\td\n", r"d\.tsv:1: 4 fields and no header .*names the columns score"),
        ("d.tsv", "score\tscore\tsentence1\tsentence2\n", r"d\.tsv:1: .*names score more than"),
        ("d.tsv", "1\ta\tb\n2\tc\td\n", r"d\.tsv: 2 graded pairs; .* at least 3"),
        ("s.csv", "a\tb\tc\td\t1\te\tf\na\tb\tc\td\t1\te\n", r"s\.csv:2: 6 fields; .*at least 7"),
        ("s.csv", "a\tb\tc\td\t1\te\tf\na\tb\tc\td\tx\te\tf\n", r"s\.csv:2: score 'x'"),
        (
            "d.jsonl",
            "{}\n",
            r"d\.jsonl:1: the columns '' are not .* sentence1, sentence2 and score",
        ),
        (
            "d.jsonl",
            '{"sentence1": "a", "sentence2": "b", "label": 1, "rating": 2}\n',
            r"d\.jsonl:1: the columns 'sentence1, sentence2, label, rating' are not",
        ),
        (
            "d.jsonl",
            '{"sentence1": "a", "sentence2": "b", "score": 1}\n{"sentence1": "a", "score": 1}\n',
            r"d\.jsonl:2: 'sentence2' is null, not a string",
        ),
        (
            "d.json",
            '[{"sentence1": "a", "sentence2": "b", "score": true}]',
            r"d\.json:1: score 'True' is not a number",
        ),
        ("d.tsv", "", r"d\.tsv"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_pairs_file(write(tmp_path, text, name))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_wrong_bytes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.tsv"):
        load_pairs_file(tmp_path / "nowhere.tsv")
    path = tmp_path / "latin.tsv"
    path.write_bytes(PLAIN.encode() + b"3\tcaf\xe9\tb\n")
    with pytest.raises(DataError, match=r"latin\.tsv:4: .*not UTF-8"):
        load_pairs_file(path)


@pytest.mark.parametrize(
    ("gold", "scale"),
    [
        ([0, 0.5, 1], (0, 1)),
        ([0.2, 0.9], (0, 1)),
        ([1, 4.8], (0, 5)),
        ([0, 4], (0, 4)),
        ([1, 7], (1, 7)),
        ([-1, 1], (-1, 1)),
    ],
)
def test_the_inferred_scale(gold: list[float], scale: tuple[float, float]) -> None:
    assert observed_scale(np.array(gold, dtype=float)) == scale
