"""Triplets from NLI files, pairs from questions and answers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.data.prepare.nli import NliColumns, nli_triplets, parse_labels
from simcse_kit.data.prepare.qa import qa_pairs
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import read_texts
from simcse_kit.errors import ConfigError, DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(path: Path) -> list[tuple[str, ...]]:
    return list(read_texts(path)[1])


SNLI = (
    "gold_label\tsentence1_parse\tsentence1\tsentence2\n"
    "entailment\t(x)\tp1\te1\ncontradiction\t(x)\tp1\tc1\n-\t(x)\tp1\tno\nneutral\t(x)\tp1\tn1\n"
    "entailment\t(x)\tp1\te2\nentailment\t(x)\tp2\te3\ncontradiction\t(x)\tp3\tc3\n"
)


def test_snli_as_it_comes(tmp_path: Path) -> None:
    file = write(tmp_path / "snli_1.0_train.txt", SNLI)
    summary = nli_triplets([file], tmp_path / "t.csv", ReadOptions(format="tsv"))
    assert rows(tmp_path / "t.csv") == [("p1", "e1", "c1"), ("p1", "e2", "c1")]
    assert (summary.rows, summary.read) == (2, 7)
    assert summary.left_out == {
        "rows without a gold label": 1,
        "entailments without a contradiction": 1,
    }
    assert summary.figures == {"entailment": 3, "contradiction": 2, "neutral": 1, "premises": 3}


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("hub.csv", "premise,hypothesis,label\np,e,0\np,c,2\np,n,1\np,x,-1\n", {}),
        (
            "mnli.tsv",
            "sentence1\tsentence2\tgold_label\np\te\tentailment\np\tc\tcontradiction\n",
            {},
        ),
        (
            "anli.jsonl",
            '{"context":"p","hypothesis":"e","label":"e"}\n{"context":"p","hypothesis":"c","label":"c"}\n',
            {},
        ),
        (
            "own.csv",
            "a,b,judgment\np,e,Yes\np,c,No\np,x,perhaps\n",
            {
                "columns": NliColumns(
                    "a", "b", "judgment", "entailment=yes,contradiction=no,neutral=perhaps"
                )
            },
        ),
        ("bare.csv", "e,p,e\ne,p,e\nc,p,c\n", {"columns": NliColumns("1", "2", "0")}),
    ],
)
def test_columns_and_labels(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    nli_triplets([write(tmp_path / name, text)], tmp_path / "t.jsonl", **options)
    record = json.loads((tmp_path / "t.jsonl").read_text())
    assert record == {"sent0": "p", "sent1": "e", "hard_neg": "c"}


def test_contradictions_are_drawn_by_the_seed_and_used_up_first(tmp_path: Path) -> None:
    lines = [f"p,e{n},e\np,c{n},c\n" for n in range(8)]
    file = write(tmp_path / "x.csv", "premise,hypothesis,label\n" + "".join(lines))

    def made(name: str, **options: Any) -> list[tuple[str, ...]]:
        nli_triplets([file], tmp_path / name, **options)
        return rows(tmp_path / name)

    once, again, other = made("a.csv"), made("b.csv"), made("c.csv", seed=1)
    assert once == again != other
    assert sorted(row[2] for row in once) == [f"c{n}" for n in range(8)]
    assert [row[1] for row in once] == [f"e{n}" for n in range(8)]
    assert len(made("d.csv", one_per_premise=True)) == 1


def test_what_annotators_disagree_on_is_no_negative(tmp_path: Path) -> None:
    text = "premise,hypothesis,label\np,h,e\np,h,c\nq,e,e\nq,c,c\nq,c,c\n"
    summary = nli_triplets([write(tmp_path / "x.csv", text)], tmp_path / "t.csv")
    assert rows(tmp_path / "t.csv") == [("q", "e", "c")]
    assert summary.left_out == {"rows given twice": 1, "entailments without a contradiction": 1}


def test_the_texts_of_a_triplet_differ(tmp_path: Path) -> None:
    lines = ["premise,hypothesis,label", "A cat.,a cat,entailment", "A cat.,an animal,entailment"]
    lines += ["A cat.,A CAT!,contradiction", "A cat.,An animal!,contradiction"]
    lines += ["A cat.,a dog,contradiction", "b,B,entailment", "b,c,contradiction"]
    file = write(tmp_path / "x.csv", "\n".join(lines) + "\n")
    summary = nli_triplets([file], tmp_path / "t.csv")
    assert rows(tmp_path / "t.csv") == [("A cat.", "an animal", "a dog")]
    assert summary.left_out == {"entailments that are the premise itself": 2}
    equal = write(tmp_path / "y.csv", "\n".join([lines[0], *lines[-2:]]) + "\n")
    with pytest.raises(DataError, match=r"no premise .*1 entailments that are the premise itself"):
        nli_triplets([equal], tmp_path / "u.csv")


def test_premises_meet_over_files(tmp_path: Path) -> None:
    one = write(tmp_path / "1.csv", "premise,hypothesis,label\np,e,entailment\n")
    two = write(tmp_path / "2.tsv", "sentence1\tsentence2\tlabel\np\tc\tcontradiction\n")
    nli_triplets([one, two], tmp_path / "t.csv")
    assert rows(tmp_path / "t.csv") == [("p", "e", "c")]


def test_numbers_for_labels_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "x.csv", "premise,hypothesis,label\np,e,0\np,c,2.0\n")
    with caplog.at_level(logging.INFO, "simcse_kit"):
        nli_triplets([file], tmp_path / "t.csv")
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        "reading the labels 0, 1, 2 as entailment, neutral, contradiction"
    ]


HEAD = "premise,hypothesis,label\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (HEAD + "p,h,maybe\n", {}, r"x\.csv:2: unknown label 'maybe'; known: entailment.*--labels"),
        (HEAD + "p,,e\n", {}, r"x\.csv:2: 'premise' or 'hypothesis' is blank"),
        (HEAD + "p,h\n", {}, r"x\.csv:2: ragged row"),
        (HEAD + "p,e,e\n", {}, r"no premise has both .*1 entailment"),
        ("a,b,label\np,h,e\n", {}, "have none for the premise .*name it with --premise"),
        (
            HEAD + "p,h,e\n",
            {"columns": NliColumns("premises")},
            "no column 'premises' .did you mean 'premise'",
        ),
        (
            HEAD,
            {"columns": NliColumns(spellings="entails=1")},
            "'entails=1' must have the form CLASS=SPELLING",
        ),
        (
            HEAD,
            {"columns": NliColumns(spellings="entailment=1")},
            "does not say how contradiction is spelled",
        ),
        (
            HEAD,
            {"columns": NliColumns(spellings="entailment=1,contradiction=1")},
            "'1' is given for two classes",
        ),
    ],
)
def test_bad_nli(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        nli_triplets([write(tmp_path / "x.csv", text)], tmp_path / "t.csv", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    text = HEAD + "p,e,e\np,c,c\np,h,huh\np,h\np,,e\n"
    options = ReadOptions(on_bad_row="skip")
    summary = nli_triplets([write(tmp_path / "x.csv", text)], tmp_path / "t.csv", options)
    assert summary.bad_rows == {"unknown label": 1, "wrong number of fields": 1, "blank text": 1}
    assert "bad rows: 1 unknown label" in summary.text()


def test_labels_may_have_several_spellings() -> None:
    assert parse_labels("entailment=Yes, entailment=1, contradiction=no") == {
        "yes": "entailment",
        "1": "entailment",
        "no": "contradiction",
    }


def test_questions_and_answers(tmp_path: Path) -> None:
    text = "id,Question,answer\n1, q1 ,a1\n2,q2,\n3,q1,a1\n4,q1,a2\n"
    summary = qa_pairs(write(tmp_path / "x.csv", text), tmp_path / "p.csv")
    assert rows(tmp_path / "p.csv") == [("q1", "a1"), ("q1", "a2")]
    assert summary.left_out == {"rows without an answer": 1, "pairs given twice": 1}
    assert (summary.read, summary.rows) == (4, 2)


def test_an_answer_that_repeats_the_question_makes_no_pair(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", '{"question": "Why?", "answers": ["why", "so"]}\n')
    summary = qa_pairs(file, tmp_path / "p.csv")
    assert rows(tmp_path / "p.csv") == [("Why?", "so")]
    assert summary.left_out == {"answers that repeat the question": 1}
    file = write(tmp_path / "y.jsonl", '{"question": "Why?", "answers": ["why"]}\n')
    with pytest.raises(DataError, match="an answer that differs"):
        qa_pairs(file, tmp_path / "q.csv")


def test_answers_in_lists(tmp_path: Path) -> None:
    lines = [
        {"question": "q1", "answers": ["a1", "a2"]},
        {"question": "q2", "answers": {"text": ["a3"], "answer_start": [1]}},
        {"question": "q3", "answers": None},
    ]
    file = write(tmp_path / "x.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    qa_pairs(file, tmp_path / "p.tsv")
    assert rows(tmp_path / "p.tsv") == [("q1", "a1"), ("q2", "a3")]
    qa_pairs(file, tmp_path / "p.tsv", all_answers=True, overwrite=True)
    assert rows(tmp_path / "p.tsv") == [("q1", "a1"), ("q1", "a2"), ("q2", "a3")]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("question,answer\n,a\n", {}, r"x\.csv:2: the question in column 'question' is blank"),
        ("question,answer\nq,\n", {}, "no row has both a question and an answer"),
        ("x,y\nq,a\n", {}, "none for the question"),
        ("question,y\nq,a\n", {}, "none for the answer"),
        ("q,y\nq,a\n", {"question": "q", "answer": "q"}, "would be both question and answer"),
        ("question,answer\nq,a\n", {"question": "3", "answer": "1"}, "no column '3'"),
    ],
)
def test_bad_qa(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        qa_pairs(write(tmp_path / "x.csv", text), tmp_path / "p.csv", **options)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
