"""Training from Python: data in memory, keyword arguments, callbacks, a custom method."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from transformers import TrainerCallback

import simcse_kit
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.methods.simcse import SimCSE
from tests.small_data import sentences, write_corpus
from tests.training.conftest import MakeConfig, Trained, train
from tests.training.test_run import same_weights

TEXTS = sentences(40)
PAIRS = list(zip(TEXTS[:20], TEXTS[20:], strict=True))


class Halved(SimCSE):
    """A method that a user wrote."""


@pytest.fixture
def short(tiny_encoder_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a run of two steps."""
    return {
        "model": tiny_encoder_dir,
        "pooling": "mean",
        "output": tmp_path / "out",
        "max_steps": 2,
        "batch_size": 8,
    }


def settings_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))


def test_rows_in_memory_train_what_a_file_trains(short: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    vectors = []
    for name, data in (("file", file), ("string", str(file)), ("list", TEXTS)):
        result = train(data, **short | {"output": tmp_path / name})
        assert result.steps == 2
        assert result.encoder is result.encoder
        vectors.append(result.encoder.encode(TEXTS))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_keywords_and_settings_reach_the_configuration(
    short: dict[str, Any], trained: Trained, dev_file: Path
) -> None:
    result = train(
        iter(PAIRS),
        preset="simcse-unsup",
        settings={"method.mlp_only_train": False, "data.max_length": 20, "training.log_every": 1},
        callbacks=[trained],
        temperature=0.1,
        objective="decoupled",
        learning_rate=1e-4,
        dev=dev_file,
        seed=3,
        max_length=24,
        **short,
    )
    config = settings_of(result.output)
    assert result.score_name == "dev_spearman"
    assert (config["method"]["temperature"], config["method"]["objective"]) == (0.1, "decoupled")
    assert (config["training"]["seed"], config["training"]["learning_rate"]) == (3, 1e-4)
    assert (config["data"]["max_length"], config["training"]["log_every"]) == (24, 1)
    assert not (result.output / "training.html").exists()


def test_several_files_and_a_configuration_file(short: dict[str, Any], tmp_path: Path) -> None:
    file = write_corpus(tmp_path)
    (tmp_path / "b.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    first = train([file, tmp_path / "b.txt"], **short)
    assert settings_of(first.output)["data"]["train"] == [str(file), str(tmp_path / "b.txt")]
    again = train(config=first.output / "run.toml", output=tmp_path / "again")
    np.testing.assert_array_equal(again.encoder.encode(TEXTS), first.encoder.encode(TEXTS))


def test_functions_get_the_rows_and_callbacks_can_stop(make_config: MakeConfig) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            control.should_training_stop = state.global_step == 8

    rows: list[dict[str, float]] = []
    result = train(make_config(), callbacks=[rows.append, Stop()])
    assert result.steps == 8
    assert rows == result.history
    assert result.best_step in (4, 8)
    rows.clear()
    # A resumed run reports only its new rows.
    resumed = train(make_config(), resume=True, callbacks=[rows.append])
    assert resumed.steps == 12
    assert rows == resumed.history[-len(rows) :]
    assert min(row["step"] for row in rows) > 8


def test_a_method_of_ones_own(short: dict[str, Any], trained: Trained) -> None:
    result = train(TEXTS, method=Halved, callbacks=[trained], **short)
    assert type(trained.methods[0]) is Halved
    assert settings_of(result.output)["method"]["name"] == f"{__name__}:Halved"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (TEXTS, {"epoch": 3}, r"no argument 'epoch' \(did you mean 'epochs'\?\); .*settings="),
        (TEXTS, {"train": ["x"]}, r"no argument 'train'"),
        (TEXTS, {"settings": {"seed": 3}}, r"'seed' is not the key of a setting"),
        (TEXTS, {"settings": {"training.sed": 3}}, r"^train\(\): unknown key 'training\.sed'"),
        (TEXTS, {"batch_size": 0}, r"^train\(\): training\.batch_size is 0"),
        (TEXTS, {"callbacks": [Trained]}, r"callbacks contains .*give instances of"),
        (5, {}, r"got a int as data; give a file"),
        (None, {}, r"no training data"),
    ],
)
def test_wrong_arguments_are_refused(
    short: dict[str, Any], data: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(data, **short | options)
    assert not short["output"].exists()


def test_a_configuration_takes_no_further_settings(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"got a RunConfig.*and also seed; change the RunConfig"):
        train(make_config(), seed=1)


def test_a_bad_row_is_named_by_its_number(short: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^row 3 of the data: .*blank"):
        train([*TEXTS[:2], " "], **short)
    result = train([*TEXTS, " "], on_bad_row="skip", **short)
    assert sum(result.skipped.values()) == 1


def test_a_resumed_run_needs_the_same_rows(short: dict[str, Any]) -> None:
    train(TEXTS, **short)
    train(TEXTS, resume=True, **short)
    with pytest.raises(ConfigError, match=r"the training text has other content"):
        train(TEXTS[1:], resume=True, **short)


def test_names_are_public() -> None:
    for name in simcse_kit.__all__:
        assert getattr(simcse_kit, name) is not None
    assert simcse_kit.SentenceEncoder is SentenceEncoder


def test_the_dev_set_may_be_pairs_in_memory(short: dict[str, Any], tmp_path: Path) -> None:
    pairs = [(text, TEXTS[-number], float(number)) for number, text in enumerate(TEXTS[:6])]
    frame = pd.DataFrame(pairs, columns=["sentence1", "sentence2", "label"])
    scores = [
        train(TEXTS, dev=dev, **short | {"output": tmp_path / name}).best_score
        for name, dev in (("table", frame), ("tuples", pairs))
    ]
    assert scores[0] is not None
    assert scores[0] == scores[1]


def test_a_table_in_memory_trains_as_its_rows_do(short: dict[str, Any], tmp_path: Path) -> None:
    frame = pd.DataFrame(PAIRS, columns=["anchor", "positive"])
    outputs = [
        train(rows, **short | {"output": tmp_path / name}).output
        for name, rows in (("table", pa.table(frame)), ("tuples", PAIRS))
    ]
    assert same_weights(*(output / "model.safetensors" for output in outputs))
