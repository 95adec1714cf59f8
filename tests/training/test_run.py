"""Training runs on the tiny encoder: their output files, and what they refuse."""

from __future__ import annotations

import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from simcse_kit.config_files import load_config
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, ModelError, SimcseError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.training import build, scorers
from simcse_kit.training.batching.order import ShuffledOrder
from simcse_kit.training.batching.subset import RowSubset
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, Trained, train

TEXTS = sentences(10, seed=9)


def rows_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in lines if line]


def weights(file: Path) -> dict[str, Any]:
    return {key: value.numpy() for key, value in load_file(file).items()}


def same_weights(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    return all(np.array_equal(one[key], two[key]) for key in one)


# ------------------------------------------------------------------ what a run leaves behind


@pytest.mark.parametrize("kind", ["texts", "pairs", "triplets"])
def test_a_run_learns_and_leaves_an_encoder_with_its_records(
    kind: str,
    make_config: MakeConfig,
    trained: Trained,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config({"training": {"max_steps": 20}}, kind=kind)
    # The curves take longer than the run.
    result = train(config, callbacks=[trained], report=kind == "texts")
    folder = result.output

    history = result.history
    assert history == rows_of(folder)
    dev = [(row["step"], row["dev_loss"]) for row in history if "dev_loss" in row]
    assert [step for step, _ in dev] == [0, 4, 8, 12, 16, 20]
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    assert result.start_score == dev[0][1]
    assert (result.best_score, result.best_step) == min((loss, step) for step, loss in dev[1:])
    assert result.best_score < result.start_score
    # without an auxiliary loss the trainer's mean is that of the method
    for row in history:
        if "loss" in row:
            assert row["loss"] == pytest.approx(row["contrastive_loss"], rel=1e-4)
            negatives = {"texts": 7, "pairs": 7, "triplets": 23}[kind]
            assert row["ln_batch"] == pytest.approx(np.log(1 + negatives))

    views = {"texts": 1, "pairs": 2, "triplets": 4}[kind]
    assert (result.steps, result.sentences) == (20, 20 * 8 * views)
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == result.to_json()
    if kind == "texts":
        page = (folder / "training.html").read_text(encoding="utf-8")
        assert "<svg" in page
        assert "Seed" in page
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "arxiv.org/abs/2104.08821" in card
    assert f"64 {kind}" in card
    assert load_config(file=folder / "run.toml").method.options["temperature"] == 0.05
    # the method stays in training mode; the saved encoder is the one in memory
    np.testing.assert_array_equal(
        SentenceEncoder.load(folder).encode(TEXTS), trained.methods[0].encoder.encode(TEXTS)
    )
    assert not list(folder.glob(".*"))
    assert capsys.readouterr().out == ""


def test_the_best_checkpoint_is_kept_not_the_last(
    make_config: MakeConfig,
    dev_file: Path,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter([10.0, 20.0, 90.0, 50.0])
    seen: list[np.ndarray] = []

    def scorer(*_: Any) -> Any:
        def score(method: Method) -> dict[str, float]:
            seen.append(method.encoder.encode(TEXTS))
            return {"dev_spearman": next(scores)}

        return score

    monkeypatch.setattr(scorers, "dev_scorer", scorer)
    result = train(make_config({"evaluation": {"dev": str(dev_file)}}), callbacks=[trained])
    assert (result.score_name, result.start_score) == ("dev_spearman", 10)
    assert (result.best_score, result.best_step) == (90, 8)
    saved = SentenceEncoder.load(result.output).encode(TEXTS)
    np.testing.assert_array_equal(saved, seen[2])
    np.testing.assert_array_equal(trained.methods[0].encoder.encode(TEXTS), seen[2])
    assert not np.array_equal(saved, seen[3])


def test_dev_pairs_choose_the_checkpoint(make_config: MakeConfig, dev_file: Path) -> None:
    result = train(make_config({"evaluation": {"dev": str(dev_file)}}))
    rows = [row for row in result.history if "dev_spearman" in row]
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    assert result.best_score == max(row["dev_spearman"] for row in rows[1:])
    assert all("dev_uniformity" in row for row in rows)
    # with a dev set no row is held out: 64 rows are 8 batches
    assert next(row for row in result.history if row["step"] == 8)["epoch"] == 1
    assert "Spearman on dev" in (result.output / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize(
    ("select", "name", "lowest"),
    [
        ("loss", "dev_loss", True),
        ("alignment_uniformity", "dev_alignment_uniformity", True),
        ("both", "dev_loss_alignment_uniformity", True),
        ("dev", "dev_spearman", False),
    ],
)
def test_the_checkpoint_is_chosen_by_what_was_asked_for(
    make_config: MakeConfig, dev_file: Path, select: str, name: str, lowest: bool
) -> None:
    config = make_config({"evaluation": {"dev": str(dev_file), "select": select}})
    result = train(config)
    found = {row["step"]: row[name] for row in result.history if name in row and row["step"]}
    assert result.score_name == name
    pick = min if lowest else max
    assert result.best_score == pick(found.values())
    assert found[result.best_step] == result.best_score
    scores = [row for row in result.history if "dev_spearman" in row]
    assert len(scores) == len(found) + 1  # the labels are scored, and choose nothing
    if select == "both":
        assert all(
            row[name] == pytest.approx(row["dev_loss"] + row["dev_alignment_uniformity"])
            for row in scores
        )


def test_a_choice_that_has_no_rows_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="needs held-out rows"):
        train(make_config({"evaluation": {"select": "both", "held_out": 0}}))
    with pytest.raises(ConfigError, match="there is no dev set"):
        train(make_config({"evaluation": {"select": "dev"}}))


def test_the_resolved_configuration_is_written_before_the_first_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    folder = Path(config.training.output)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.ContrastiveTrainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    written = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    assert written["method"]["temperature"] == 0.05
    assert written["training"]["max_steps"] == 12
    assert not (folder / "result.json").exists()
    assert not (folder / "config.json").exists()


def test_a_run_toml_repeats_the_run(make_config: MakeConfig) -> None:
    first = train(make_config())
    again = load_config(
        file=first.output / "run.toml",
        overrides=[{"training": {"output": f"{first.output}-again"}}],
    )
    second = train(again)
    assert same_weights(first.output / "model.safetensors", second.output / "model.safetensors")


@pytest.mark.long
def test_the_seed_decides(make_config: MakeConfig, plain_run: Path) -> None:
    for seed in (42, 2):
        other = train(make_config({"training": {"seed": seed}}, name=f"seed-{seed}")).output
        file = "model.safetensors"
        assert same_weights(plain_run / file, other / file) is (seed == 42)


def test_evaluating_does_not_change_the_training(make_config: MakeConfig, plain_run: Path) -> None:
    file = "checkpoints/checkpoint-12/model.safetensors"
    other = train(make_config({"evaluation": {"every": 5}})).output
    assert same_weights(plain_run / file, other / file)


def test_scoring_a_dev_set_does_not_change_the_training(
    make_config: MakeConfig, dev_file: Path
) -> None:
    files = [
        train(
            make_config(
                {"evaluation": {"every": every, "dev": str(dev_file)}}, name=f"every-{every}"
            )
        ).output
        / "checkpoints/checkpoint-12/model.safetensors"
        for every in (2, 5)
    ]
    assert same_weights(*files)


@pytest.mark.parametrize("only_train", [True, False])
def test_the_head_is_kept_only_if_wanted(only_train: bool, make_config: MakeConfig) -> None:
    result = train(
        make_config(
            {
                "model": {"pooling": "cls_before_pooler"},
                "training": {"max_steps": 2},
                "method": {"mlp_only_train": only_train},
            }
        )
    )
    encoder = SentenceEncoder.load(result.output)
    assert (encoder.head is None) is only_train
    assert encoder.pooling == ("cls_before_pooler" if only_train else "cls")


def test_masked_lm_beside_the_contrastive_loss(make_config: MakeConfig) -> None:
    result = train(make_config({"method": {"mlm_weight": 0.1}}))
    rows = [row for row in result.history if "loss" in row]
    assert all(
        row["loss"] == pytest.approx(row["contrastive_loss"] + 0.1 * row["mlm_loss"], rel=1e-4)
        for row in rows
    )
    assert SentenceEncoder.load(result.output).encode(TEXTS).shape == (10, 32)


def test_accumulated_batches_add_steps_not_negatives(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="simcse_kit")
    config = make_config(
        {
            "trainer": {"gradient_accumulation_steps": 3},
            "training": {"epochs": 2},
            "evaluation": {"held_out": 0},
        }
    )
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"max_steps": None})}
    )
    result = train(config)
    assert "64 texts, 7 negatives per anchor (gradient accumulation adds none;" in caplog.text
    # 8 batches make 3 steps (3 + 3 + 2), twice
    assert result.steps == 6
    assert result.history[-1]["epoch"] == 2


def test_cut_sentences_are_counted(make_config: MakeConfig) -> None:
    result = train(make_config({"data": {"max_length": 5}, "training": {"max_steps": 2}}))
    assert result.truncated is not None
    assert 0.5 < result.truncated < 1  # all but those of three words
    assert "longer than 5 tokens" in (result.output / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------ warnings


def test_no_dropout_is_warned_of(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    train(make_config({"method": {"dropout": 0.0}, "training": {"max_steps": 2}}))
    assert "method.dropout=0.1" in caplog.text


def test_learning_nothing_is_warned_of(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(make_config({"training": {"learning_rate": 1e-30, "max_steps": 4}}))
    assert "training did not help: dev_loss" in caplog.text
    assert result.best_score == result.start_score


def test_nothing_to_evaluate_on_keeps_the_last_state(
    make_config: MakeConfig, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(make_config({"evaluation": {"held_out": 0}}), callbacks=[trained])
    assert "the last state is kept" in caplog.text
    assert (result.score_name, result.start_score, result.best_score) == (None, None, None)
    assert all("dev_loss" not in row for row in result.history)
    np.testing.assert_array_equal(
        SentenceEncoder.load(result.output).encode(TEXTS), trained.methods[0].encoder.encode(TEXTS)
    )


def test_a_corpus_of_one_batch_keeps_all_its_rows_for_training(make_config: MakeConfig) -> None:
    result = train(make_config({"training": {"batch_size": 64, "max_steps": 1}}))
    assert (result.sentences, result.score_name) == (64, None)


# ------------------------------------------------------------------ refused before weights load


def bad(**tables: Any) -> dict[str, Any]:
    return tables


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("tables", "kind", "words"),
    [
        (bad(training={"batch_size": 65}), ConfigError, ["65", "64 rows", "--batch-size"]),
        (bad(training={"batch_size": 1}), ConfigError, ["batch_size is 1", "no negatives"]),
        (bad(trainer={"adam_beta3": 1}), ConfigError, ["trainer.adam_beta3", "'adam_beta"]),
        (bad(trainer={"learning_rate": 1.0}), ConfigError, ["training.learning_rate"]),
        (bad(trainer={"optim": "adamx"}), ConfigError, ["[trainer]", "adamx"]),
        (bad(trainer={"gradient_accumulation_steps": 0}), ConfigError, ["accumulation_steps is 0"]),
        (bad(training={"report_to": ["tensorbord"]}), ConfigError, ["'tensorboard'"]),
        (bad(training={"report_to": ["wandb"]}), MissingExtraError, ["simcse-kit[wandb]"]),
        (bad(method={"name": "simsce"}), ConfigError, ["'simsce'", "'simcse'"]),
        (bad(method={"temprature": 1}), ConfigError, ["method.temprature", "'temperature'"]),
        (bad(evaluation={"dev": "absent.tsv"}), DataError, ["absent.tsv", "does not exist"]),
        (bad(data={"train": []}), ConfigError, ["no training data"]),
        (bad(data={"train": ["absent.txt"]}), DataError, ["absent.txt"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_refused_before_weights_load(
    tables: dict[str, Any],
    kind: type[SimcseError],
    words: list[str],
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simcse_kit.training.arguments.find_spec", lambda _: None)
    config = make_config(tables)
    with pytest.raises(kind) as caught:
        train(config)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert not Path(config.training.output).exists()


@pytest.mark.usefixtures("no_weights")
def test_data_that_the_method_cannot_read_is_refused(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimCSE, "reads", ("pairs",))
    with pytest.raises(ConfigError, match="cannot read 'texts' data; it reads pairs"):
        train(make_config())


@pytest.mark.usefixtures("no_weights")
def test_a_bad_dev_file_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("1.0\ta\tb\n2.0\tc\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.tsv:2: 2 fields"):
        train(make_config({"evaluation": {"dev": str(dev)}}))


def test_a_model_that_is_not_there_leaves_no_folder(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config({"model": {"name": str(tmp_path / "nothing")}})
    with pytest.raises(ModelError):
        train(config)
    assert not Path(config.training.output).exists()


def test_the_order_is_a_function_of_seed_and_epoch(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = RowSubset.__getitems__

    def spy(rows: RowSubset, indices: list[int]) -> Any:
        read.extend(indices)
        return original(rows, indices)

    monkeypatch.setattr(RowSubset, "__getitems__", spy)
    config = make_config({"training": {"epochs": 2, "max_steps": None, "seed": 5}})
    train(config)
    orders = []
    for epoch in range(2):
        order = ShuffledOrder((max(read) + 1) // 2, 5)
        order.set_epoch(epoch)
        whole = len(order) // config.training.batch_size * config.training.batch_size
        orders += list(order)[:whole]
    assert read == orders
