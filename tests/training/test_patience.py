"""Early stopping, and the warning while a score falls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.training import run
from simcse_kit.training.monitor.score_watch import has_fallen
from tests.training.conftest import MakeConfig, train
from tests.training.test_processes import file_of, printed_by, together
from tests.training.test_start import Give, give_scores

__all__ = ["give_scores"]


def table(dev: Path, **training: Any) -> dict[str, Any]:
    return {"evaluation": {"dev": str(dev), "every": 2}, "training": training}


def test_a_run_stops_after_its_patience(
    make_config: MakeConfig, dev_file: Path, give_scores: Give
) -> None:
    give_scores([10.0, 30.0, 20.0, 25.0])
    result = train(make_config(table(dev_file, patience=2)))
    assert (result.steps, result.best_step, result.improved) == (6, 2, True)
    assert result.stopped_early == "stopped after 2 evaluations without a better score"
    assert result.stopped_early in result.summary()
    assert result.to_json()["stopped_early"] == result.stopped_early
    assert result.stopped_early in (result.output / "README.md").read_text(encoding="utf-8")


def test_a_better_score_renews_the_patience(
    make_config: MakeConfig, dev_file: Path, give_scores: Give
) -> None:
    give_scores([10.0, 9.0, 11.0, 9.0, 12.0, 9.0, 8.0])
    result = train(make_config(table(dev_file, patience=2)))
    # The patience runs out at the last step, so it stopped nothing.
    assert (result.steps, result.stopped_early) == (12, None)


def test_the_start_is_an_evaluation_too(
    make_config: MakeConfig, dev_file: Path, give_scores: Give
) -> None:
    give_scores([30.0, 20.0])
    result = train(make_config(table(dev_file, patience=1)))
    assert (result.steps, result.improved) == (2, False)
    assert result.stopped_early == "stopped after 1 evaluation without a better score"


def test_undefined_scores_use_up_the_patience(
    make_config: MakeConfig, dev_file: Path, give_scores: Give
) -> None:
    give_scores([10.0, 30.0, None, None])
    assert train(make_config(table(dev_file, patience=2))).steps == 6


def test_without_patience_a_run_makes_all_its_steps(
    make_config: MakeConfig, dev_file: Path, give_scores: Give
) -> None:
    give_scores([10.0, *[5.0] * 6])
    assert train(make_config(table(dev_file))).steps == 12


@pytest.mark.parametrize("place", ["save_results", "result_of"])
def test_a_run_that_stopped_early_ends_at_once_if_it_is_resumed(
    place: str,
    make_config: MakeConfig,
    dev_file: Path,
    give_scores: Give,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost_power(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    give_scores([10.0, 30.0, 20.0, 25.0])
    config = make_config(table(dev_file, patience=2))
    with monkeypatch.context() as patched:
        patched.setattr(run, place, lost_power)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    give_scores([])
    result = train(config, resume=True)
    assert (result.steps, result.best_step, result.best_score) == (6, 2, 30.0)
    assert result.stopped_early == "stopped after 2 evaluations without a better score"


def test_a_run_that_is_interrupted_while_it_waits_does_not_start_to_count_again(
    make_config: MakeConfig,
    dev_file: Path,
    give_scores: Give,
) -> None:
    give_scores([10.0, 30.0, 20.0])
    config = make_config(table(dev_file, patience=2))
    with pytest.raises(StopIteration):  # at the evaluation of step 6
        train(config)
    give_scores([25.0])
    assert train(config, resume=True).steps == 6


def test_patience_without_evaluations_is_reported(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    train(make_config({"evaluation": {"held_out": 0}, "training": {"patience": 2}}))
    assert "training.patience = 2 has no effect: nothing is evaluated" in caplog.text


def test_patience_below_one_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"training\.patience"):
        make_config({"training": {"patience": 0}})


def test_a_falling_score_is_warned_of_once_a_fall(
    make_config: MakeConfig,
    dev_file: Path,
    give_scores: Give,
    caplog: pytest.LogCaptureFixture,
) -> None:
    give_scores([56.8, 55.0, 54.0, 53.0, 52.0, 51.0, 50.0])
    train(make_config(table(dev_file)))
    said = "dev_spearman is 53, and has been worse than 56.8, which it was at step 0"
    assert caplog.text.count("has been worse than") == 1
    assert f"step 6: {said}, for 3 evaluations" in caplog.text


def test_a_second_fall_is_warned_of_again_and_noise_is_not() -> None:
    scores = [10.0, 5.0, 5.0, 5.0, 20.0, 15.0, 15.0, 15.0, 15.0]
    found = [n for n in range(1, len(scores) + 1) if has_fallen("dev_spearman", scores[:n])]
    assert found == [4, 8]
    assert not has_fallen("dev_spearman", [10.0, 9.6, 9.6, 9.6])
    assert not has_fallen("dev_spearman", [10.0, 5.0, 9.8, 5.0, 5.0])


def test_a_loss_falls_short_when_it_rises() -> None:
    assert has_fallen("dev_loss", [1.0, 1.1, 1.1, 1.1])
    assert not has_fallen("dev_loss", [1.0, 0.9, 0.8, 0.7])
    assert not has_fallen("dev_loss", [4.0, 4.03, 4.03, 4.03])


@pytest.mark.slow
def test_several_processes_stop_together_and_save_the_start(
    make_config: MakeConfig, tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    slow = {"training": {"learning_rate": 1e-30, "patience": 1}, "evaluation": {"every": 2}}
    config = make_config({"method": {"mlp_only_train": False}}, slow)
    running = together(2, tmp_path, "train", "--json", "--config", file_of(config, tmp_path))
    first, second = printed_by(running)
    assert [process.returncode for process in running] == [0, 0], (tmp_path / "1.log").read_text()
    result = json.loads(first)
    assert (second, result["steps"], result["improved"]) == ("", 2, False)
    assert result["stopped_early"] == "stopped after 1 evaluation without a better score"
    saved, start = (
        SentenceEncoder.load(place, pooling=pooling).encode(["the cat sat"])
        for place, pooling in ((config.training.output, None), (tiny_encoder_dir, "mean"))
    )
    np.testing.assert_array_equal(saved, start)
