"""Graded pairs, from the file to the encoder, without a flag."""

from __future__ import annotations

import itertools
import json
import logging
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simcse_kit.cli.main import app
from simcse_kit.config import MethodSection, RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.training.plan import StartOptions
from simcse_kit.training.prepare import check, prepare
from simcse_kit.training.verify_resume import verify_resume
from tests.small_data import sentences
from tests.training.conftest import train

TEXTS = sentences(25)


def graded(folder: Path, scores: list[Any] | None = None, name: str = "graded.csv") -> Path:
    pairs = zip(itertools.pairwise(TEXTS), itertools.cycle(scores or range(6)), strict=False)
    rows = [f"{first},{second},{score}" for (first, second), score in pairs]
    path = folder / name
    path.write_text("\n".join(["sentence1,sentence2,score", *rows]) + "\n", encoding="utf-8")
    return path


def options(encoder: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": encoder,
        "output": folder / "out",
        "max_steps": 2,
        "batch_size": 4,
        "overwrite": True,
        "settings": {"evaluation.held_out": 0},
    } | more


def written(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "out" / "run.toml").read_text(encoding="utf-8"))


def test_a_graded_file_picks_the_method_and_records_it(
    tiny_encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = graded(tmp_path)
    with caplog.at_level(logging.INFO):
        result = train(path, **options(tiny_encoder_dir, tmp_path))
    chosen = "those of preset 'graded', because the data are pairs with scores"
    assert sum(chosen in text for text in caplog.messages) == 1
    scale = "the scores are 0 to 5, so their scale is taken to be 0 to 5"
    assert sum(scale in text for text in caplog.messages) == 1
    run = written(tmp_path)
    assert run["method"]["name"] == "graded"
    assert run["method"]["objective"] == "cosent"
    assert run["data"]["scale"] == [0.0, 5.0]
    assert SentenceEncoder.load(result.output).encode(["the cat"]).shape == (1, 32)
    # The recorded run is the same run.
    again = train(path, **options(tiny_encoder_dir, tmp_path, resume=True, overwrite=False))
    assert again.steps == 2
    file = result.output / "run.toml"
    assert check(load_config(file=file)) is None  # type: ignore[func-returns-value]


@pytest.mark.long
@pytest.mark.parametrize("objective", ["cosent", "angle", "cosine_regression"])
def test_every_objective_learns_the_order_of_the_scores(
    tiny_encoder_dir: Path, tmp_path: Path, objective: str
) -> None:
    rows = [(TEXTS[n], TEXTS[n + 1], float(n % 2)) for n in range(16)]
    given = options(tiny_encoder_dir, tmp_path, objective=objective, max_steps=25, batch_size=16)
    settings = {"evaluation.held_out": 0, "training.log_every": 1, "method.dropout": 0.0}
    result = train(rows, **given | {"settings": settings, "learning_rate": 1e-3})
    correlations = [row["score_correlation"] for row in result.history if "loss" in row]
    assert correlations[-1] > 0.5 > correlations[0] + 0.2


def test_a_large_batch_is_computed_in_chunks(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    settings = {"evaluation.held_out": 0, "method.dropout": 0.0, "training.log_every": 1}
    losses = []
    for more in ({}, {"training.chunk_tokens": 40}):
        given = options(tiny_encoder_dir, tmp_path, settings=settings | more, batch_size=12)
        result = train(graded(tmp_path), **given)
        losses.append([row["loss"] for row in result.history if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_scale_reaches_the_loss_of_the_regression_alone(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    def first_loss(objective: str, scale: tuple[float, float]) -> float:
        settings = {"evaluation.held_out": 0, "method.dropout": 0.0, "training.log_every": 1}
        given = options(tiny_encoder_dir, tmp_path, objective=objective, scale=scale, max_steps=1)
        result = train(graded(tmp_path), **given | {"settings": settings})
        return next(row["loss"] for row in result.history if "loss" in row)

    assert first_loss("cosent", (0, 5)) == pytest.approx(first_loss("cosent", (-5, 50)))
    # All cosines of this encoder are near 1, and the mean score rises from 0.5 to 0.95.
    assert first_loss("cosine_regression", (-90, 7)) < 0.02
    assert first_loss("cosine_regression", (0, 5)) > 0.05


@pytest.mark.long
def test_a_killed_run_resumes_exactly(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    table = {
        "model": {"name": str(tiny_encoder_dir)},
        "data": {"train": [str(graded(tmp_path))]},
        "training": {"output": str(tmp_path / "out"), "batch_size": 4},
        "evaluation": {"held_out": 0},
    }
    folder = tmp_path / "verify"
    folder.mkdir()
    verified = verify_resume(load_config(overrides=[table]), folder, kills=1)
    assert verified.different == []


def test_a_default_method_is_not_written_before_the_data_chose_it() -> None:
    assert "name" not in tomllib.loads(RunConfig().to_toml())["method"]
    named = RunConfig(method=MethodSection(name="simcse"))
    assert tomllib.loads(named.to_toml())["method"]["name"] == "simcse"


@pytest.mark.usefixtures("no_weights")
def test_a_named_method_stays(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    def plan(scores: list[Any] | None = None, **tables: dict[str, Any]) -> Any:
        data = {"train": [str(graded(tmp_path, scores))], **tables.pop("data", {})}
        table = {
            "model": {"name": str(tiny_encoder_dir)},
            "training": {"output": str(tmp_path / "out"), "batch_size": 4},
        }
        return prepare(load_config(overrides=[table, {"data": data}, tables]), StartOptions())

    with pytest.raises(ConfigError, match=r"'simcse' cannot read 'labelled'.*--preset graded"):
        plan(method={"name": "simcse"})
    margin = plan([0, 1], method={"name": "margin_contrastive"})
    assert (margin.config.method.name, margin.label_scale) == ("margin_contrastive", None)
    assert plan([0, 1]).label_scale == [0, 1]
    assert plan(data={"columns": ["sentence1", "sentence2"]}).config.method.name == "simcse"
    assert plan(data={"scale": [-1, 6]}).label_scale == [-1, 6]
    assert plan(method={"objective": "angle"}).options.objective == "angle"


@pytest.mark.usefixtures("no_weights")
def test_a_scale_without_effect_is_reported(
    tiny_encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = graded(tmp_path, [0, 1])
    table = {
        "model": {"name": str(tiny_encoder_dir)},
        "data": {"train": [str(path)], "scale": "0,1"},
        "training": {"output": str(tmp_path / "out"), "batch_size": 4},
        "method": {"name": "margin_contrastive"},
    }
    check(load_config(overrides=[table]))
    assert any("data.scale = [0.0, 1.0] has no effect" in text for text in caplog.messages)


@pytest.mark.usefixtures("no_weights")
def test_classes_of_inference_are_noticed(
    tiny_encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warnings = []
    for scores in ([0, 1], [0, 1, 2.5], [0, 1, 2]):
        caplog.clear()
        table = {
            "model": {"name": str(tiny_encoder_dir)},
            "data": {"train": [str(graded(tmp_path, scores))]},
            "training": {"output": str(tmp_path / "out"), "batch_size": 4},
        }
        check(load_config(overrides=[table]))
        warnings.append([text for text in caplog.messages if "looks like classes" in text])
    assert warnings[:2] == [[], []]
    # What the warning recommends works.
    (warning,) = warnings[2]
    given = re.search(r"with simcse (data nli FILE .*)", warning)
    assert given is not None
    rows = ["sentence1,sentence2,score", "a cat,the cat,0", "a cat,rain,2", "a cat,a dog,1"]
    nli = tmp_path / "nli.csv"
    nli.write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = given[1].replace("FILE", str(nli)).replace("OTHER", str(tmp_path / "other")).split()
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert "a cat,the cat,rain" in (tmp_path / "other.csv").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        ([3], {}, "all scores are 3, so no pair is more similar"),
        ([0, 5], {"scale": (0, 4)}, r"score 5 is outside data.scale = .* use --scale 0,5 or wider"),
        ([0, 5], {"scale": (5, 0)}, "must be the lowest and the highest score, such as 0,5"),
        ([0, 5], {"scale": ["a", 1]}, "must be the lowest and the highest score, such as 0,5"),
        ([0, 5], {"scale": (0, float("nan"))}, "must be the lowest and the highest score"),
        ([0, 5], {"batch_size": 1}, "compares the rows of a batch; use --batch-size 2"),
        (["high"], {}, "the label is 'high'; write a finite number"),
        (["nan"], {}, "the label is 'nan'; write a finite number"),
    ],
)
def test_scores_that_cannot_be_learned_are_refused_before_the_model_is_opened(
    tiny_encoder_dir: Path, tmp_path: Path, scores: list[Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        train(graded(tmp_path, scores), **options(tiny_encoder_dir, tmp_path, **more))
    assert "\n" not in str(caught.value)


def test_rows_in_memory_pick_the_method_too(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    tuples = [(TEXTS[n], TEXTS[n + 1], n % 4) for n in range(12)]
    dicts = [dict(zip(("sentence1", "sentence2", "score"), row, strict=True)) for row in tuples]
    for rows in (tuples, dicts):
        train(rows, **options(tiny_encoder_dir, tmp_path))
        assert written(tmp_path)["method"]["name"] == "graded"
        assert written(tmp_path)["data"]["scale"] == [0.0, 3.0]
    assert json.loads((tmp_path / "out" / "result.json").read_text())
