"""Text that the model does not know: counted, warned about, and refused if most is unknown."""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.data.lines import SAMPLE, TextSample
from simcse_kit.errors import DataError
from simcse_kit.evaluation.evaluate import evaluate
from tests.cli.conftest import Simcse
from tests.cli.test_commands import refused

CHINESE = ["今天天气很好", "你叫什么名字", "我喜欢吃苹果", "老师在上课呢"]


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    path = tmp_path / "zh.txt"
    path.write_text("\n".join(CHINESE) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    path = tmp_path / "zh.tsv"
    rows = [f"{n}\t{left}\t{right}\n" for n, left in enumerate(CHINESE) for right in CHINESE[:n]]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def test_encode(
    simcse: Simcse, chinese: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["encode", "mini", chinese, "--output", tmp_path / "v.npy"]
    words = ("zh.txt is mostly unknown to the model", "'今天天气很好'", "--allow-unknown")
    refused(simcse(*command), *words)
    assert not (tmp_path / "v.npy").exists()
    done = simcse(*command, "--allow-unknown", "--json")
    assert done.code == 0
    tokens = json.loads(done.out)["tokens"]
    assert (tokens["unknown"], tokens["tokens"], tokens["same_ids"]) == (24, 24, 3)
    assert "24 of 24 tokens are unknown" in done.err
    assert "3 of 4 distinct sentences become the token ids of another one" in done.err
    # Standard input is judged by its beginning, and none of it is lost.
    feed = "\n".join([*CHINESE, *(["the cat sat on the mat"] * 2000)]).encode()
    for text, unknown in ((feed, False), ("\n".join(CHINESE).encode(), True)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        done = simcse("encode", "mini", "-", "--output", tmp_path / "w.npy")
        if unknown:
            refused(done, "<standard input> is mostly unknown")
        else:
            assert len(np.load(tmp_path / "w.npy")) == 2004


def test_similarity(simcse: Simcse) -> None:
    done = simcse("similarity", "mini", *CHINESE[:2], "--json")
    assert done.code == 0
    assert json.loads(done.out)["tokens"]["unknown"] == 12
    assert "12 of 12 tokens are unknown" in done.err
    assert "1 of 2 distinct sentences become the token ids" in done.err


def test_eval_and_its_report(simcse: Simcse, graded: Path, tmp_path: Path) -> None:
    command = ["eval", "mini", "--tasks", graded, "--resamples", "0"]
    refused(simcse(*command), "the text of the tasks is mostly unknown", "--allow-unknown")
    done = simcse(*command, "--allow-unknown", "--json", "-", "--report", tmp_path / "report")
    assert done.code == 0
    assert json.loads(done.out)["tokens"]["unknown"] == 24
    assert "24 of 24 tokens are unknown" in done.err
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Unknown" in page
    assert ">100 %<" in page


def test_evaluate_in_python(graded: Path) -> None:
    from simcse_kit import SentenceEncoder

    encoder = SentenceEncoder.load("mini")
    with pytest.raises(DataError, match=r"in Python: allow_unknown=True"):
        evaluate(encoder, graded)
    report = evaluate(encoder, graded, allow_unknown=True)
    assert report.tokens is not None
    assert (report.tokens.sentences, report.tokens.unknown) == (4, 24)


def test_compare(simcse: Simcse, graded: Path) -> None:
    command = ["compare", "mini", "mini", "--tasks", graded, "--resamples", "100"]
    refused(simcse(*command), "mostly unknown", "--allow-unknown")


@pytest.mark.long
def test_train(simcse: Simcse, tmp_path: Path) -> None:
    path = tmp_path / "zh.txt"
    rows = [text + "好" * (n % 7) for n in range(10) for text in CHINESE]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = ["train", path, "--batch-size", "4", "--max-steps", "1", "--output", tmp_path / "out"]
    refused(simcse(*command), "the training text is mostly unknown", "--allow-unknown")
    assert not (tmp_path / "out").exists()
    done = simcse(*command, "--allow-unknown")
    assert done.code == 0
    assert "100 % of the tokens were unknown to the vocabulary" in done.out
    done = simcse(*command, "--overwrite", "--set", "data.allow_unknown=true", "--json")
    assert json.loads(done.out)["unknown"] == 1


def test_info_on_a_file(simcse: Simcse, chinese: Path, tmp_path: Path) -> None:
    done = simcse("info", "mini", "--on", chinese)
    assert done.code == 0
    assert "24 tokens (100 %), in 4 sentences, such as '今天天气很好'" in done.out
    assert "3 sentences equal to another, such as '今天天气很好' and '你叫什么名字'" in done.out
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sent0,sent1\nThe cat,the cat\nthe cat,a dog 今\n", encoding="utf-8")
    facts = json.loads(simcse("info", "mini", "--on", pairs, "--json").out)["text"]
    assert {k: facts[k] for k in ("read", "sentences", "tokens", "cut", "unknown", "same_ids")} == {
        "read": 4,
        "sentences": 3,
        "tokens": 7,
        "cut": 0,
        "unknown": 1,
        "same_ids": 1,
    }
    assert facts["examples"]["same_ids"] == ["The cat", "the cat"]
    refused(simcse("info", "mini", "--on", tmp_path / "none.txt"), "no such file")


@pytest.mark.parametrize("count", [0, 1, SAMPLE, 2 * SAMPLE, 10_000])
def test_a_sample_is_spread_over_the_stream(count: int) -> None:
    sample = TextSample(str(n) for n in range(count))
    assert sample.seen == count
    numbers = list(map(int, sample.items))
    assert min(count, SAMPLE) <= len(numbers) <= 2 * SAMPLE
    assert len({b - a for a, b in itertools.pairwise(numbers)}) <= 1
    assert count - (numbers[-1] if numbers else 0) <= count / SAMPLE + 2
