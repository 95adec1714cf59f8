"""The preset that fits a model and the data, if the user names none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from simcse_kit.cli import options
from simcse_kit.config import RunConfig, TrainingSection
from simcse_kit.config_files import load_config
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.training.preset_choice import DEFAULTS_FILE, choose, load_run_config
from tests.small_data import write_corpus
from tests.training.conftest import MakeConfig, train

Resolve = Callable[..., RunConfig]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    files = {kind: write_corpus(tmp_path, kind) for kind in ("texts", "pairs", "triplets")}
    files["labelled"] = tmp_path / "graded.csv"
    files["labelled"].write_text("sentence1,sentence2,score\na cat,a dog,1\nthe car,a tree,0\n")
    return files


@pytest.fixture
def resolve(data: dict[str, Path]) -> Resolve:
    def load(model: str | Path, kind: str, *tables: dict[str, Any], **sources: Any) -> RunConfig:
        table = {"model": {"name": str(model)}, "data": {"train": [str(data[kind])]}}
        return load_run_config(overrides=[table, *tables], **sources)

    return load


@pytest.fixture
def finished(tmp_path: Path, tiny_encoder_dir: Path) -> Path:
    folder = tmp_path / "finished"
    SentenceEncoder.load(tiny_encoder_dir, pooling="cls_before_pooler").save(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "kind", "preset"),
    [
        ("mini", "texts", "mini-unsup"),
        ("mini", "pairs", "mini-sup"),
        ("mini", "triplets", "mini-sup"),
        ("mini", "labelled", "graded"),
        ("raw", "texts", "simcse-unsup"),
        ("raw", "pairs", "simcse-sup"),
        ("raw", "triplets", "simcse-sup"),
        ("raw", "labelled", "graded"),
        ("finished", "texts", "adapt"),
        ("finished", "pairs", "adapt"),
        ("finished", "triplets", "adapt"),
        ("finished", "labelled", "graded"),
    ],
)
def test_the_preset_follows_the_model_and_the_data(
    model: str,
    kind: str,
    preset: str,
    resolve: Resolve,
    tiny_encoder_dir: Path,
    finished: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="simcse_kit")
    folder = {"mini": "mini", "raw": tiny_encoder_dir, "finished": finished}[model]
    config = resolve(folder, kind)
    wanted = load_config(preset=preset)
    assert config.method == wanted.method
    for key in ("learning_rate", "epochs", "schedule"):
        assert getattr(config.training, key) == getattr(wanted.training, key)
    assert config.data.max_length == wanted.data.max_length
    # A finished encoder keeps its pooling.
    assert config.model.pooling == (None if model == "finished" else wanted.model.pooling)
    assert config.model.name == str(folder)
    (message,) = [text for text in caplog.messages if "the settings are those of" in text]
    assert f"preset '{preset}', because " in message
    assert "--preset NAME, or the plain defaults with --preset none" in message


def test_what_depends_on_the_machine_stays_at_its_default(
    resolve: Resolve, tiny_encoder_dir: Path
) -> None:
    """The batch of 512 is more than the rows of a small corpus, or than the memory."""
    chosen = resolve(tiny_encoder_dir, "triplets").training
    assert (chosen.batch_size, chosen.precision) == (64, "auto")
    named = resolve(tiny_encoder_dir, "triplets", preset="simcse-sup").training
    assert (named.batch_size, named.precision) == (512, "fp32")
    assert resolve(tiny_encoder_dir, "labelled").training.batch_size == 16


def test_what_the_user_sets_wins(resolve: Resolve, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[training]\nlearning_rate = 0.5\nseed = 7\n")
    flags = {"training": {"seed": 8}, "method": {"temperature": 0.3}}
    config = resolve("mini", "texts", flags, file=file)
    assert (config.training.learning_rate, config.training.seed) == (0.5, 8)
    assert config.method.options == {"temperature": 0.3, "head": "none"}
    assert config.model.pooling == "first_last_mean"


@pytest.mark.parametrize(
    "sources",
    [
        {"preset": "none"},
        {"preset": "moco"},
        {"tables": {"method": {"name": "moco"}}},
        {"text": '[method]\nname = "simcse"\n'},
        {"text": "[method]\ntemperature = 0.2\n"},
    ],
)
def test_no_preset_is_chosen_against_the_user(
    sources: dict[str, Any], resolve: Resolve, tmp_path: Path
) -> None:
    tables, given = sources.get("tables", {}), {}
    if "text" in sources:
        given["file"] = tmp_path / "mine.toml"
        given["file"].write_text(sources["text"])
    if "preset" in sources:
        given["preset"] = sources["preset"]
    config = resolve("mini", "texts", tables, **given)
    assert config.training.learning_rate == 3e-5
    assert config.method.options.get("head") is None
    assert config.model.pooling == ("cls_before_pooler" if given.get("preset") == "moco" else None)


def test_naming_the_method_of_the_fitting_preset_changes_nothing(resolve: Resolve) -> None:
    assert resolve("mini", "texts", {"method": {"name": "simcse"}}) == resolve("mini", "texts")


def test_naming_teachers_chooses_distillation(resolve: Resolve) -> None:
    config = resolve("mini", "texts", {"method": {"teachers": ["mini"]}})
    assert config.method.name == "distill"
    assert config.method.options["teachers"] == ["mini"]
    assert config.training == load_config(preset="distill").training


def test_documents_get_no_preset(resolve: Resolve) -> None:
    config = resolve("mini", "texts", {"data": {"documents": 2}})
    assert config.training.learning_rate == 3e-5


def test_what_cannot_be_opened_is_refused_later(resolve: Resolve, tmp_path: Path) -> None:
    assert resolve(tmp_path / "nothing", "texts").method.options == {}
    table = {"data": {"train": [str(tmp_path / "nothing.txt")]}}
    assert load_run_config(overrides=[table]).method.options == {}
    assert load_run_config().method.options == {}


def test_the_whole_configuration_gets_no_preset(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simcse_kit")
    train(make_config({"training": {"max_steps": 1}}))
    assert "the settings are those of" not in caplog.text


def test_run_toml_records_the_choice_and_repeats_the_run(
    tiny_encoder_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    given = {"model": tiny_encoder_dir, "output": tmp_path / "out", "max_steps": 1, "batch_size": 8}
    train(data["texts"], **given)
    file = tmp_path / "out" / "run.toml"
    config = load_run_config(file=file)
    assert config == load_config(file=file)
    assert config.model.pooling == "cls_before_pooler"
    assert config.method.options["mlp_only_train"] is True
    assert train(data["texts"], **given, resume=True).steps == 1


def test_only_the_first_process_says_what_was_chosen(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simcse_kit")
    alone = resolve("mini", "texts")
    caplog.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert resolve("mini", "texts") == alone
    assert "the settings are those of" not in caplog.text


def test_a_comparison_of_methods_gets_no_preset(data: dict[str, Path]) -> None:
    """Its methods share all settings but their own."""
    bare = options.load_run(train=[str(data["texts"])])
    assert bare.training.learning_rate == TrainingSection().learning_rate
    assert options.load_run(
        choose_preset=True, train=[str(data["texts"])]
    ).training.learning_rate == pytest.approx(4e-4)


# ------------------------------------------------------------------ settings of a model folder


RECOMMENDED = """
[method]
name = "simcse"
temperature = 0.07
[training]
learning_rate = 2e-5
[data]
max_length = 77
"""


def test_a_model_folder_recommends_settings(
    resolve: Resolve, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simcse_kit")
    (finished / DEFAULTS_FILE).write_text(RECOMMENDED)
    config = resolve(finished, "texts", {"data": {"max_length": 9}})
    assert config.method.options == {"temperature": 0.07}
    assert (config.training.learning_rate, config.data.max_length) == (2e-5, 9)
    assert f"{DEFAULTS_FILE} of model" in caplog.text
    assert "because the model recommends them and the data are single sentences" in caplog.text
    # Its method cannot read scores.
    assert resolve(finished, "labelled").method.name == "graded"
    assert resolve(finished, "texts", preset="none").method.options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[training]\noutput = "/"\n', r"cannot recommend training\.output; remove the line, or"),
        ("[model]\ntrust_remote_code = true\n", r"cannot recommend model\.trust_remote_code"),
        ('[trainer]\noptim = "sgd"\n', r"cannot recommend trainer\.optim"),
        ('[method]\nname = "os:system"\n', r"'os:system' imports code, which the file of a model"),
        ("[training]\nspeed = 3\n", "unknown key 'training.speed'"),
        ("speed", "is not valid TOML"),
    ],
)
def test_a_model_folder_cannot_set_files_or_code(
    text: str, message: str, resolve: Resolve, finished: Path
) -> None:
    (finished / DEFAULTS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(finished, "texts")
    assert DEFAULTS_FILE in str(caught.value)
    # The remedy works.
    assert resolve(finished, "texts", preset="none").training.output == "simcse-output"


def test_the_choice_can_be_asked_for(data: dict[str, Path]) -> None:
    choice = choose(load_config(overrides=[{"data": {"train": [str(data["pairs"])]}}]))
    assert choice is not None
    assert (choice.name, choice.method) == ("preset 'mini-sup'", "simcse")
    assert choice.reason == "the model is mini and the data are pairs"


def test_the_data_is_asked_of_an_unreachable_address_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refuse(self: Any, path: str, **_: Any) -> None:  # noqa: ARG001
        asked.append(path)
        raise ConnectionError("no route")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(ConnectionError: no route\)"):
        train("memory://bucket/a.txt")
    assert len(asked) == 1
