"""A user's graded pairs: forms, splits, and rows that are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import observed_scale
from simcse_kit.evaluation.pairs_file import load_pairs_file

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
        ("d.jsonl", "{}\n", r"d\.jsonl"),
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
