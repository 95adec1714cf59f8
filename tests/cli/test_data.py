"""`simcse data`, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simcse_kit.data.readers import read_texts
from simcse_kit.encoder.encoder import SentenceEncoder
from tests.cli.conftest import Done, Simcse
from tests.small_data import write_corpus

NLI = "premise,hypothesis,label\np,e,entailment\np,c,contradiction\np,x,-\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nli.csv").write_text(NLI)
    (tmp_path / "qa.csv").write_text("question,answer\nq,a\n")
    (tmp_path / "twice.txt").write_text("one\nOne!\ntwo\nthree\n")
    write_corpus(tmp_path, "pairs")
    write_corpus(tmp_path, "texts")
    return tmp_path


def refused(done: Done, *words: str) -> None:
    assert (done.code, done.out) == (2, "")
    errors = [line for line in done.err.split("\n") if line.startswith("simcse: error: ")]
    assert len(errors) == 1, done.err
    assert all(word in errors[0] for word in words), errors[0]


def test_help(simcse: Simcse) -> None:
    done = simcse("data", "--help")
    assert done.code == 0
    for command in ("nli", "qa", "mine", "dedupe", "split"):
        assert f"\n  {command} " in done.out
        assert simcse("data", command, "--help").code == 0


def test_nli(simcse: Simcse, here: Path) -> None:
    done = simcse("data", "nli", "nli.csv", "--output", "t.csv")
    assert done == Done(
        0,
        "1 rows of 3: t.csv\nleft out: 1 rows without a gold label\n"
        "entailment: 1\ncontradiction: 1\npremises: 1\n",
        "",
    )
    assert list(read_texts(here / "t.csv")[1]) == [("p", "e", "c")]


def test_qa(simcse: Simcse, here: Path) -> None:
    done = simcse("data", "qa", "qa.csv", "--output", "p.jsonl", "--json")
    assert json.loads(done.out) == {
        "output": "p.jsonl",
        "rows": 1,
        "read": 1,
        "left_out": {},
        "bad_rows": {},
        "figures": {},
    }
    assert json.loads((here / "p.jsonl").read_text()) == {"sent0": "q", "sent1": "a"}


def test_dedupe_and_split(simcse: Simcse, here: Path) -> None:
    done = simcse("data", "dedupe", "twice.txt", "--output", "once.txt")
    assert done.out == (
        "3 rows of 4: once.txt\nleft out: 1 duplicates up to case, punctuation and spacing\n"
    )
    done = simcse("data", "split", "once.txt", "--output", "new/parts", "--dev-test", "1,1")
    assert done.out.startswith("3 rows of 3: new/parts\n")
    found = [path.read_text() for path in sorted((here / "new/parts").iterdir())]
    assert sorted(found) == ["one\n", "three\n", "two\n"]


@pytest.mark.parametrize("kind", ["pairs.jsonl", "texts.txt"])
def test_mined_triplets_train(
    simcse: Simcse, here: Path, tiny_encoder_dir: Path, kind: str
) -> None:
    arguments = ("data", "mine", kind, "--model", tiny_encoder_dir, "--output")
    options = ("--negatives", "2", "--ranks", "2:40", "--factor", "0.999", "--json")
    done = simcse(*arguments, "a.jsonl", *options)
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    rows = list(read_texts(here / "a.jsonl")[1])
    assert summary["rows"] == len(rows) > 10
    for anchor, positive, *negatives in rows:
        assert 1 <= len(negatives) <= 2
        assert not {anchor, positive} & set(negatives)
    assert (
        summary["figures"]["mean score of negatives"]
        < summary["figures"]["mean score of positives"]
    )
    again = simcse(*arguments, "b.jsonl", *options)
    assert again.code == 0
    assert (here / "a.jsonl").read_bytes() == (here / "b.jsonl").read_bytes()


def test_more_candidates(simcse: Simcse, here: Path, tiny_encoder_dir: Path) -> None:
    (here / "two.csv").write_text("sent0,sent1\nthe cat sat,a cat sat\n")
    (here / "pool.txt").write_text("music is playing\n\n")
    done = simcse(
        *("data", "mine", "two.csv", "--model", tiny_encoder_dir, "--pool", "pool.txt"),
        *("--output", "t.csv", "--factor", "1"),
    )
    assert done.code == 0, done.err
    assert list(read_texts(here / "t.csv")[1]) == [("the cat sat", "a cat sat", "music is playing")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nli none.csv --output t.csv", "none.csv: no such file"),
        ("nli qa.csv --output t.csv", "qa.csv: name it with --premise"),
        ("nli nli.csv --output nli.csv", "is there already --overwrite"),
        ("nli nli.csv --output t.txt", "one text a line"),
        ("qa nli.csv --output t.csv", "nli.csv: --question"),
        ("qa qa.csv --output t.csv --on-bad-row stop", "on_bad_row is 'stop'"),
        ("dedupe qa.csv --output t.csv", "qa.csv:1: --columns"),
        ("dedupe twice.txt --output t.txt --level x", "level is 'x'"),
        ("split twice.txt --output twice.txt", "twice.txt is a file"),
        ("split twice.txt --output d --dev-test 9", "--dev-test '9'"),
        ("mine none.csv --output t.csv", "none.csv: no such file"),
        ("mine qa.csv --output t.csv", "qa.csv:1: --columns"),
        ("mine pairs.jsonl --output t.csv --ranks 5", "ranks '5': 10:50"),
        ("mine pairs.jsonl --output no/t.csv", "there is no folder no"),
        ("mine pairs.jsonl --output t.csv --pool none.txt", "none.txt: no such file"),
        ("mine pairs.jsonl --output t.csv --factor 2", "factor is 2.0"),
    ],
)
def test_errors_are_one_line_and_come_before_any_model(
    simcse: Simcse, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: str
) -> None:
    monkeypatch.setattr(SentenceEncoder, "load", None)
    before = sorted(here.iterdir())
    refused(simcse("data", *arguments.split()), *words.split())
    assert sorted(here.iterdir()) == before


def test_text_commands_need_no_torch(here: Path) -> None:
    probe = (
        "import sys; from simcse_kit.cli.main import main\n"
        "sys.argv = ['simcse', 'data', 'nli', 'nli.csv', '--output', 't.csv']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=here)
    assert done.stdout.endswith("set()\n"), done.stderr
