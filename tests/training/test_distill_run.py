"""Distillation, from the text and the teachers to the student."""

from __future__ import annotations

import json
import logging
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from simcse_kit.cli.main import app
from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, ModelError
from simcse_kit.evaluation.embed import unit_rows
from simcse_kit.training import teacher_cache
from simcse_kit.training import teachers as teachers_module
from simcse_kit.training.teacher_cache import RowText, TeacherCache
from simcse_kit.training.teachers import Teacher
from simcse_kit.training.verify_resume import verify_resume
from simcse_kit.utils.distributed import ALONE
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, train

CPU = torch.device("cpu")
TEXTS = sentences(40)


@pytest.fixture(scope="session")
def teacher_dir(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another encoder with 32 dimensions."""
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        for weight in encoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    folder = tmp_path_factory.mktemp("teacher") / "encoder"
    encoder.save(folder)
    return folder


@pytest.fixture
def distil(make_config: MakeConfig, teacher_dir: Path) -> Any:
    def make(*teachers: Any, name: str = "out", **tables: dict[str, Any]) -> RunConfig:
        method = {"name": "distill", "teachers": list(map(str, teachers or [teacher_dir]))}
        given = {"method": method | tables.pop("method", {})}
        return make_config(given, tables, name=name)

    return make


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a teacher is opened."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a teacher was opened")

    monkeypatch.setattr(teachers_module, "open_encoder", refuse)


def text(texts: list[str] = TEXTS, fingerprint: str = "text") -> RowText:
    return RowText(fingerprint, len(texts), lambda: texts)


def cache(folder: Path, of: RowText | None = None) -> TeacherCache:
    return TeacherCache(Teacher(str(folder), CPU), of or text(), ALONE)


# ---------------------------------------------------------------- runs


@pytest.mark.long
def test_a_student_learns_the_vectors_of_its_teacher(
    distil: Any, dev_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"training": {"max_steps": 60, "log_every": 1}, "evaluation": {"dev": str(dev_file)}}
    with caplog.at_level(logging.INFO):
        result = train(distil(method={"dropout": 0.0}, **more))
    rows = [row for row in result.history if "loss" in row]
    assert rows[-1]["target_distance"] < 0.3 < rows[0]["target_distance"]
    assert rows[-1]["relational_kl"] < rows[0]["relational_kl"]
    (line,) = [line for line in caplog.messages if "their target with" in line]
    assert line.startswith("dev: teacher ")
    assert line.endswith(f"their target with 32 dimensions {line.rpartition(' ')[2]}")
    run = tomllib.loads((result.output / "run.toml").read_text(encoding="utf-8"))
    assert run["method"]["bridge"] == "principal"
    assert "| Teachers | " in (result.output / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_vectors_are_computed_once(
    distil: Any, dev_file: Path, request: pytest.FixtureRequest
) -> None:
    more = {"evaluation": {"dev": str(dev_file)}}
    first = train(distil(name="first", **more))
    request.getfixturevalue("closed")
    second = train(distil(name="second", **more))
    ours, theirs = (load_file(run.output / "model.safetensors") for run in (first, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(
    distil: Any, teacher_dir: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    config = distil(teacher_dir, tiny_encoder_dir, model={"keep_layers": [1]})
    folder = tmp_path / "verify"
    folder.mkdir()
    assert verify_resume(config, folder, kills=1).different == []


@pytest.mark.long
def test_chunks_give_the_same_steps(distil: Any) -> None:
    runs = []
    for name, more in (("whole", {}), ("chunks", {"chunk_tokens": 40})):
        config = distil(name=name, training={"log_every": 1} | more, method={"dropout": 0.0})
        runs.append([row["loss"] for row in train(config).history if "loss" in row])
    assert runs[1] == pytest.approx(runs[0], abs=1e-3)


def test_a_dense_layer_gives_the_student_the_width_of_the_teachers(
    distil: Any, teacher_dir: Path, tiny_encoder_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = train(distil(teacher_dir, tiny_encoder_dir, method={"bridge": "dense"}))
    assert "the student gets a layer from 32 to the teachers' 64 dimensions" in caplog.text
    assert SentenceEncoder.load(result.output).encode(["the cat"]).shape == (1, 64)


def test_the_target_of_several_teachers_has_the_mean_of_their_cosines(
    distil: Any, teacher_dir: Path, tiny_encoder_dir: Path
) -> None:
    from simcse_kit.training.plan import StartOptions
    from simcse_kit.training.prepare import prepare
    from simcse_kit.training.targets import targets_of

    options = {"teacher_weights": [3, 1], "bridge": "dense"}
    plan = prepare(distil(teacher_dir, tiny_encoder_dir, method=options), StartOptions())
    student = SentenceEncoder.load(tiny_encoder_dir)
    found = targets_of(plan, student, ALONE)
    assert found is not None
    rows = [5, 0, 63]
    texts = [plan.corpus[row].texts[0] for row in rows]
    both = [unit_rows(SentenceEncoder.load(f).encode(texts)) for f in (teacher_dir, student.source)]
    expected = 0.75 * both[0] @ both[0].T + 0.25 * both[1] @ both[1].T
    np.testing.assert_allclose(found(rows) @ found(rows).T, expected, atol=1e-5)
    # Projected on as many directions as the student has, dot products stay close.
    options = {"teacher_weights": [3, 1]}
    plan = prepare(distil(teacher_dir, tiny_encoder_dir, name="b", method=options), StartOptions())
    found = targets_of(plan, SentenceEncoder.load(tiny_encoder_dir), ALONE)
    assert found is not None
    assert found(rows).shape == (3, 32)
    np.testing.assert_allclose(found(rows) @ found(rows).T, expected, atol=0.05)
    # They are rotated towards the vectors that the student starts with.
    everything = range(len(plan.corpus))
    texts = [row.texts[0] for row in plan.corpus.rows(everything)]
    start = unit_rows(SentenceEncoder.load(tiny_encoder_dir).encode(texts))
    centred = [side - side.mean(axis=0) for side in (found(everything), start)]
    assert np.trace(centred[0].T @ centred[1]) > 0.5 * np.linalg.norm(centred[0]) * np.linalg.norm(
        centred[1]
    )


def test_a_teacher_of_sentence_transformers_is_the_same_teacher(
    distil: Any, teacher_dir: Path
) -> None:
    found = [cache(Path(name)).fill()(range(40)) for name in (teacher_dir, f"st:{teacher_dir}")]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    assert train(distil(f"st:{teacher_dir}")).steps == 12


def test_the_command_takes_teachers(
    tiny_encoder_dir: Path, teacher_dir: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    (path,) = make_config().data.train
    arguments = ["train", path, "--preset", "distill", "--model", str(tiny_encoder_dir)]
    arguments += ["--teacher", str(teacher_dir), "--teacher", str(tiny_encoder_dir), "--json"]
    arguments += ["--output", str(tmp_path / "student"), "--batch-size", "8", "--max-steps", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)["steps"] == 2
    run = tomllib.loads((tmp_path / "student" / "run.toml").read_text(encoding="utf-8"))
    assert run["method"]["teachers"] == [str(teacher_dir), str(tiny_encoder_dir)]


def test_layers_are_dropped_before_training(distil: Any) -> None:
    result = train(distil(model={"keep_layers": [1]}))
    assert SentenceEncoder.load(result.output).backbone.config.num_hidden_layers == 1
    with pytest.raises(ConfigError, match=r"model\.keep_layers = \[0, 5\]: the model has 2 layers"):
        train(distil(name="b", model={"keep_layers": [0, 5]}))


# ---------------------------------------------------------------- bad input


def test_a_student_that_is_wider_than_its_teachers_is_refused(distil: Any) -> None:
    settings = {"model": {"name": "mini"}}
    with pytest.raises(ConfigError) as caught:
        train(distil(**settings))
    assert str(caught.value) == (
        "the student has 256 dimensions and its teachers have 32, so the targets cannot be "
        "projected on as many directions; use --set method.bridge=dense, more teachers, or a "
        "narrower student"
    )
    remedy = {"bridge": "dense"}
    assert train(distil(method=remedy, training={"max_steps": 1}, **settings)).steps == 1


@pytest.mark.parametrize("name", ["./nowhere", "st:./nowhere"])
def test_a_teacher_that_cannot_be_opened_is_named(distil: Any, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        train(distil(name))
    message = str(caught.value)
    assert message.startswith(f"teacher {name} cannot be used: ")
    assert message.endswith("; name a model that `simcse eval` opens")
    assert message.count(f"teacher {name}") == 1
    assert "\n" not in message


# ---------------------------------------------------------------- the cache


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache, "SHARD_ROWS", 16)


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_cache_continues(teacher_dir: Path, request: pytest.FixtureRequest) -> None:
    def interrupted() -> Iterator[str]:
        yield from TEXTS[:35]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache(teacher_dir, RowText("text", 40, interrupted)).fill()
    folder = cache(teacher_dir).folder
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert kept
    vectors = cache(teacher_dir).fill()
    for name, time in kept.items():
        assert (folder / name).stat().st_mtime_ns == time
    expected = unit_rows(SentenceEncoder.load(teacher_dir).encode(TEXTS))
    order = [39, 0, 16, 15, 0]
    np.testing.assert_allclose(vectors(order), expected[order], atol=1e-6)
    request.getfixturevalue("closed")
    assert cache(teacher_dir).fill()(order).shape == (5, 32)


@pytest.mark.usefixtures("small_shards")
def test_a_cache_of_another_text_is_refused(teacher_dir: Path) -> None:
    folder = cache(teacher_dir).folder
    cache(teacher_dir).fill()
    other = text([*TEXTS[:20], *reversed(TEXTS[20:])])
    with pytest.raises(DataError, match=r"another text: rows 17 to 32 differ; remove") as caught:
        cache(teacher_dir, other).fill()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    assert cache(teacher_dir, other).fill()([39]).shape == (1, 32)


@pytest.mark.usefixtures("small_shards")
def test_a_changed_shard_is_computed_again(
    teacher_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = cache(teacher_dir).fill()(range(40))
    path = cache(teacher_dir).folder / "part-000001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert np.array_equal(cache(teacher_dir).fill()(range(40)), expected)
    assert f"{path} has changed; computing it again" in caplog.text


def test_the_cache_is_that_of_the_text_and_the_teacher(
    teacher_dir: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = cache(teacher_dir).key
    assert cache(teacher_dir).key == ours
    assert cache(teacher_dir, text(fingerprint="other")).key != ours
    assert cache(tiny_encoder_dir).key != ours
    assert cache(Path(f"st:{teacher_dir}")).key != ours
    keys = set()
    for url in ("http://localhost:1/v1", "http://localhost:2/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        keys.add(cache(Path("openai:model")).key)
    assert len(keys) == 2
