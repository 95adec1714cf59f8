"""`simcse eval`, `simcse compare` and `simcse data check-leak`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from tests.cli.conftest import Simcse
from tests.cli.test_commands import files_in, refused


def test_eval_scores_a_file_of_graded_pairs(
    simcse: Simcse, tiny_encoder_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    scores, page = tmp_path / "scores.json", tmp_path / "page"
    # a model that this kit trained brings its curves
    model = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "model"))
    rows = [{"step": 1, "loss": 2.0, "ln_batch": 2.1}, {"step": 2, "loss": 1.0, "ln_batch": 2.1}]
    metrics = model / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    arguments = ["eval", model, "--tasks", pairs, "--pooling", "cls_before_pooler"]
    done = simcse(*arguments, "--json", scores, "--report", page)
    assert done.code == 0, done.err
    document = json.loads(scores.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert set(document) >= {
        "schema",
        "model",
        "pooling",
        "tasks",
        "average",
        "alignment",
        "uniformity",
        "versions",
        "seconds",
    }
    assert (document["schema"], document["model"]) == (1, str(model))
    assert (document["pooling"], document["average"]) == ("cls_before_pooler", None)
    task = document["tasks"]["graded"]
    assert set(task) == {"spearman", "pearson", "pairs", "mean", "wmean", "subsets"}
    assert task["pairs"] == 24
    assert {"torch", "transformers", "python"} <= set(document["versions"])
    assert "graded" in done.out
    assert f"{task['spearman']:.2f}" in done.out
    assert f"report: {page / 'report.html'}" in done.out
    assert "Traceback" not in done.err
    assert sorted(each.name for each in page.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]

    # the same numbers on stdout, and nothing else there
    printed = json.loads(simcse(*arguments, "--json", "-").out)
    assert printed["tasks"] == document["tasks"]

    metrics.write_text('{"step": 1}\n{"st', encoding="utf-8")
    done = simcse(*arguments, "--report", page)
    assert done.code == 0
    assert f"{metrics}: skipped 1 lines" in done.err
    assert "the first is line 2" in done.err


def test_eval_compares_two(simcse: Simcse, tiny_encoder_dir: Path, pairs: Path) -> None:
    done = simcse(
        *("eval", tiny_encoder_dir, "--tasks", pairs),
        *("--before", tiny_encoder_dir, "--before-pooling", "cls_before_pooler"),
    )
    assert done.code == 0
    assert done.out.count("graded") >= 2


def test_eval_refuses_before_a_model_is_opened(
    simcse: Simcse, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SentenceEncoder, "load", lambda *_, **__: pytest.fail("opened"))
    bad = tmp_path / "bad.tsv"
    bad.write_text("1\ta\tb\nx\tc\td\n", encoding="utf-8")
    before = files_in(tmp_path)
    good = ["eval", "mini", "--tasks", pairs]
    refused(simcse("eval", "mini", "--tasks", bad), f"{bad}:2")
    refused(simcse("eval", "mini", "--tasks", "STS99"), "STS99", "STS1")
    refused(simcse("eval", "mini", "--data", tmp_path / "absent"), "absent")
    refused(simcse(*good, "--json", tmp_path / "no" / "s.json"), "does not exist; create it first")
    refused(simcse(*good, "--json", tmp_path), "is a folder")
    refused(simcse(*good, "--report", bad), "is a file")
    refused(simcse(*good, "--geometry-on", "STSX"), "STSX")
    assert files_in(tmp_path) == before


def test_a_model_that_fails_leaves_no_scores(simcse: Simcse, pairs: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    refused(simcse("eval", tmp_path / "absent", "--tasks", pairs, "--json", scores), "absent")
    assert files_in(tmp_path) == ["graded.tsv"]


def test_compare_holds_models_against_the_first(
    simcse: Simcse, tiny_encoder_dir: Path, pairs: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "other"))
    options = ("--tasks", pairs, "--resamples", 200)
    done = simcse("compare", tiny_encoder_dir, other, *options, "--json", tmp_path / "c.json")
    assert done.code == 0, done.err
    assert "no difference shown" in done.out
    document = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert document["models"] == [str(tiny_encoder_dir), str(other)]
    (difference,) = document["differences"]
    assert difference["difference"] == {"estimate": 0.0, "low": 0.0, "high": 0.0}
    assert json.loads(simcse("compare", tiny_encoder_dir, other, *options, "--json", "-").out)

    seeds = f"{tiny_encoder_dir},{other}"
    done = simcse("compare", seeds, seeds, *options)
    assert done.code == 0, done.err
    assert "± 0.00 " in done.out


def test_compare_refuses_before_a_model_is_opened(
    simcse: Simcse, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SentenceEncoder, "load", lambda *_, **__: pytest.fail("opened"))
    good = ["compare", "mini", "mini", "--tasks", pairs]
    refused(simcse("compare", "mini", "--tasks", pairs), "two models or more")
    refused(simcse("compare", "mini,mini", "mini", "--tasks", pairs), "2, 1 seeds")
    refused(simcse(*good, "--resamples", 10), "resamples is 10", "100 or more")
    refused(simcse(*good, "--level", 2), "level is 2.0")
    refused(simcse(*good, "--json", tmp_path), "name of a file")
    refused(simcse("compare", "mini", "mini", "--tasks", "STS99"), "STS99")


def test_check_leak(simcse: Simcse, tiny_encoder_dir: Path, pairs: Path, tmp_path: Path) -> None:
    held = pairs.read_text(encoding="utf-8").split("\n")[1].split("\t")[1]
    train = tmp_path / "train.txt"
    train.write_text(f"a fish swims\n{held.upper()}\n", encoding="utf-8")
    command = ("data", "check-leak", train, "--against", pairs)
    done = simcse(*command, "--model", tiny_encoder_dir, "--remove", tmp_path / "clean.txt")
    assert done.code == 0, done.err
    assert "1 of 2 training rows match" in done.out
    assert "1 rows were left out of the cleaned file" in done.out
    assert f"{tiny_encoder_dir}: Spearman x100 on all pairs" in done.out
    assert (tmp_path / "clean.txt").read_text() == "a fish swims\n"
    assert json.loads(simcse(*command, "--json").out)["matched_rows"] == 1
    refused(simcse(*command, "--remove", train), "already exists")
    refused(simcse(*command, "--threshold", 3), "threshold is 3.0")
