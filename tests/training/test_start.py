"""The encoder before the first step is saved if no checkpoint is better."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.training import run, scorers
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, train
from tests.training.test_run import same_weights

TEXTS = sentences(10, seed=9)
Give = Callable[[Sequence[float | None]], None]


@pytest.fixture
def give_scores(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Replace the dev scores of the next run: the first one is that of the start."""

    def give(scores: Sequence[float | None]) -> None:
        left = iter(scores)

        def scorer(*_: Any) -> Any:
            def score(_: Any) -> dict[str, float]:
                found = next(left)
                return {} if found is None else {"dev_spearman": found}

            return score

        monkeypatch.setattr(scorers, "dev_scorer", scorer)

    return give


def vectors_of(folder: Path | str, **options: Any) -> np.ndarray:
    return SentenceEncoder.load(folder, **options).encode(TEXTS)


@pytest.mark.parametrize("after", [[50.0, 20.0, 60.0], [90.0, 90.0, 89.0], [None, None, None]])
def test_the_start_is_saved_unless_a_checkpoint_beats_it(
    after: list[float | None],
    make_config: MakeConfig,
    dev_file: Path,
    tiny_encoder_dir: Path,
    give_scores: Give,
    caplog: pytest.LogCaptureFixture,
) -> None:
    give_scores([90.0, *after])
    result = train(make_config({"evaluation": {"dev": str(dev_file)}}), report=True)

    np.testing.assert_array_equal(
        vectors_of(result.output), vectors_of(tiny_encoder_dir, pooling="mean")
    )
    assert result.improved is False
    document = json.loads((result.output / "result.json").read_text(encoding="utf-8"))
    assert document["improved"] is False
    best = max((score for score in after if score is not None), default=None)
    shown = "always undefined after" if best is None else f"{best:.4g} at best"
    sentence = f"training did not help: dev_spearman 90 before, {shown}"
    assert f"{sentence}; the encoder in {result.output} is the start" in result.summary()
    assert sentence in caplog.text
    for page in ("README.md", "training.html"):
        text = (result.output / page).read_text(encoding="utf-8").replace("\\_", "_")
        assert f"{sentence}; this encoder is the start" in text


@pytest.mark.parametrize("start", [10.0, None])
def test_a_better_checkpoint_is_saved_and_the_result_says_so(
    start: float | None,
    make_config: MakeConfig,
    dev_file: Path,
    tiny_encoder_dir: Path,
    give_scores: Give,
) -> None:
    give_scores([start, 20.0, 90.0, 50.0])
    result = train(make_config({"evaluation": {"dev": str(dev_file)}}))
    assert (result.improved, result.best_step) == (True, 8)
    assert result.no_gain is None
    assert result.to_json()["improved"] is True
    kept = SentenceEncoder.load(result.output).encode(TEXTS)
    assert not np.array_equal(kept, vectors_of(tiny_encoder_dir, pooling="mean"))


def test_a_run_without_evaluations_does_not_say_whether_it_helped(make_config: MakeConfig) -> None:
    result = train(make_config({"evaluation": {"held_out": 0}, "training": {"max_steps": 2}}))
    assert result.improved is None
    assert result.to_json()["improved"] is None


def test_a_held_out_loss_that_does_not_fall_keeps_the_start(
    make_config: MakeConfig, tiny_encoder_dir: Path
) -> None:
    result = train(make_config({"training": {"learning_rate": 1e-30, "max_steps": 4}}))
    assert result.improved is False
    np.testing.assert_array_equal(
        vectors_of(result.output), vectors_of(tiny_encoder_dir, pooling="mean")
    )


@pytest.mark.parametrize("method", ["byol", "moco", "esimcse"])
def test_a_loss_that_cannot_be_compared_with_that_of_the_start_keeps_the_checkpoint(
    method: str, make_config: MakeConfig
) -> None:
    table = {"method": {"name": method}, "training": {"learning_rate": 1e-30, "max_steps": 4}}
    result = train(make_config(table))
    assert result.improved is None
    assert result.no_gain is None


def test_a_head_that_the_method_installs_is_not_part_of_the_start(
    make_config: MakeConfig, dev_file: Path, tiny_encoder_dir: Path
) -> None:
    """The new head has random weights, and would lower the score of the start."""
    table = {"method": {"mlp_only_train": False}, "evaluation": {"dev": str(dev_file)}}
    slow = {"training": {"learning_rate": 1e-30}}
    result = train(make_config(table, slow))
    start = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    assert result.start_score == pytest.approx(DevSet.load(dev_file).score(start)["spearman"])
    assert result.improved is False
    assert SentenceEncoder.load(result.output).head is None
    np.testing.assert_array_equal(vectors_of(result.output), start.encode(TEXTS))


def test_another_pooling_of_the_run_is_not_part_of_the_start(
    make_config: MakeConfig, dev_file: Path, tiny_encoder_dir: Path, give_scores: Give
) -> None:
    table = {"model": {"pooling": "cls_before_pooler"}, "evaluation": {"dev": str(dev_file)}}
    result = train(make_config(table, {"training": {"learning_rate": 1e-30, "max_steps": 4}}))
    start = SentenceEncoder.load(tiny_encoder_dir)
    assert start.pooling == "mean"
    assert result.start_score == pytest.approx(DevSet.load(dev_file).score(start)["spearman"])
    give_scores([90.0, 1.0])
    result = train(make_config(table, {"training": {"max_steps": 4}}, name="worse"))
    np.testing.assert_array_equal(vectors_of(result.output), start.encode(TEXTS))
    card = (result.output / "README.md").read_text(encoding="utf-8")
    assert "| Pooling | mean |" in card


def test_scoring_the_start_does_not_change_the_training(
    make_config: MakeConfig, dev_file: Path
) -> None:
    file = "checkpoints/checkpoint-12/model.safetensors"
    table = {"method": {"mlp_only_train": False}, "evaluation": {"held_out": 0}}
    alone = train(make_config(table, name="alone")).output
    scored = train(make_config(table, {"evaluation": {"dev": str(dev_file)}}, name="scored")).output
    assert same_weights(alone / file, scored / file)


def test_a_template_of_the_method_is_not_part_of_the_start(
    make_config: MakeConfig, dev_file: Path, give_scores: Give, tiny_encoder_dir: Path
) -> None:
    give_scores([90.0, 50.0])
    table = {"method": {"name": "promptbert"}, "evaluation": {"dev": str(dev_file)}}
    result = train(make_config(table, {"training": {"max_steps": 1}}))
    encoder = SentenceEncoder.load(result.output)
    assert (encoder.pooling, encoder.template) == ("mean", None)
    np.testing.assert_array_equal(
        encoder.encode(TEXTS), vectors_of(tiny_encoder_dir, pooling="mean")
    )


def test_both_encoders_of_two_towers_are_the_start(
    make_config: MakeConfig, dev_file: Path, give_scores: Give, tiny_encoder_dir: Path
) -> None:
    give_scores([90.0, 1.0, 1.0, 1.0])
    table = {"method": {"name": "dual_encoder"}, "evaluation": {"dev": str(dev_file)}}
    folder = train(make_config(table, kind="pairs")).output
    for place in (folder, folder / "key"):
        np.testing.assert_array_equal(
            vectors_of(place), vectors_of(tiny_encoder_dir, pooling="mean")
        )


def test_a_resumed_run_keeps_the_start_too(
    make_config: MakeConfig,
    dev_file: Path,
    give_scores: Give,
    monkeypatch: pytest.MonkeyPatch,
    tiny_encoder_dir: Path,
) -> None:
    give_scores([90.0, 50.0, 20.0, 60.0])
    config = make_config({"evaluation": {"dev": str(dev_file)}})

    def lost_power(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "save_results", lost_power)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    give_scores([])
    result = train(config, resume=True)
    assert (result.improved, result.start_score, result.best_score) == (False, 90.0, 60.0)
    np.testing.assert_array_equal(
        vectors_of(result.output), vectors_of(tiny_encoder_dir, pooling="mean")
    )


def test_a_start_whose_files_changed_during_the_run_is_not_saved(
    make_config: MakeConfig,
    dev_file: Path,
    give_scores: Give,
    tiny_encoder_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "model"
    SentenceEncoder.load(tiny_encoder_dir, pooling="mean").save(model)
    weights = (model / "model.safetensors").read_bytes()
    other = tmp_path / "other"
    encoder = SentenceEncoder.load(model)
    encoder.set_dropout(0.3)
    next(encoder.parameters()).data.zero_()
    encoder.save(other)

    def change(*_: Any) -> Any:
        scores = iter([90.0, 50.0, 20.0])

        def score(_: Any) -> dict[str, float]:
            (model / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
            return {"dev_spearman": next(scores)}

        return score

    table = {"model": {"name": str(model)}, "evaluation": {"dev": str(dev_file), "every": 6}}
    with monkeypatch.context() as patched:
        patched.setattr(scorers, "dev_scorer", change)
        with pytest.raises(ModelError, match=r"has changed since the run began.*--resume saves it"):
            train(make_config(table))
    (model / "model.safetensors").write_bytes(weights)
    give_scores([])
    result = train(make_config(table), resume=True)
    assert result.improved is False
    np.testing.assert_array_equal(vectors_of(result.output), vectors_of(model))
