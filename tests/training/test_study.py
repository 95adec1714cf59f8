"""Comparison of methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.errors import ConfigError
from simcse_kit.training.study import runs
from simcse_kit.training.study import study as module
from simcse_kit.training.study.runs import RunRecord
from simcse_kit.training.study.study import compare_methods, variants
from simcse_kit.training.study.table import rows_of, text_table
from tests.small_data import write_corpus, write_pairs


@pytest.fixture
def config(tiny_encoder_dir: Path, tmp_path: Path) -> RunConfig:
    table: dict[str, Any] = {
        "model": {"name": str(tiny_encoder_dir)},
        "data": {"train": [str(write_corpus(tmp_path))]},
        "training": {"output": str(tmp_path / "study"), "max_steps": 2, "batch_size": 4},
        "evaluation": {"dev": str(write_pairs(tmp_path / "graded.tsv"))},
    }
    return load_config(overrides=[table])


Fake = Callable[..., RunRecord]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Runs that were asked for; none is made."""
    asked: list[tuple[str, int]] = []

    def fake(run: RunConfig, _dev: object, _folder: Path, *, method: str, **_: Any) -> RunRecord:
        asked.append((method, run.training.seed))
        figures = {"dev_spearman": 10.0 + len(asked), "sentences_per_second": 5.0}
        return RunRecord(method, run.training.seed, figures, best_step=1)

    monkeypatch.setattr(module, "run_once", fake)
    return asked


@pytest.mark.long
def test_a_study_end_to_end_and_its_finished_runs_are_not_made_again(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = compare_methods(config, "simcse(head='none')", seeds=1)
    document = json.loads((study.folder / "study.json").read_text())
    assert [run["method"] for run in document["runs"]] == ["start", "simcse(head=none)"]
    assert [run["seed"] for run in document["runs"]] == [None, 42]
    figures = document["runs"][1]["figures"]
    assert set(figures) >= {"dev_spearman", "uniformity", "effective_rank"}
    assert figures["peak_mb"] > 100
    assert figures["sentences_per_second"] > 0
    assert "simcse(head=none)" in (study.folder / "study.md").read_text()
    ElementTree.parse(study.folder / "study.svg")
    place = study.folder / "runs" / "simcse-head=none-seed42"
    kept = ["log.txt", "metrics.jsonl", "record.json", "run.toml"]
    assert sorted(file.name for file in place.iterdir()) == kept

    def explode(*_: object, **__: object) -> RunRecord:
        pytest.fail("a finished run was made again")

    monkeypatch.setattr(module, "run_once", explode)
    again = compare_methods(config, "simcse(head='none')", seeds=1, resume=True)
    assert again.records == study.records
    with pytest.raises(ConfigError, match="is not empty; --resume continues"):
        compare_methods(config, "simcse", seeds=1)
    longer = config.training.model_copy(update={"max_steps": 3})
    changed = config.model_copy(update={"training": longer})
    assert runs.finished_run(place, changed) is None


def test_every_seed_sees_all_methods_in_turn(
    config: RunConfig, made: list[tuple[str, int]]
) -> None:
    study = compare_methods(config, "simcse,simcse(temperature=0.1)", seeds=2)
    second = "simcse(temperature=0.1)"
    assert made == [("simcse", 42), (second, 42), ("simcse", 43), (second, 43)]
    # Means 12 and 13; the untrained encoder is last.
    assert [row.method for row in study.rows] == [second, "simcse", "start"]
    assert study.rows[0].mean("dev_spearman") == 13
    assert study.rows[0].deviation("dev_spearman") == pytest.approx(2**0.5)


def test_a_method_may_have_a_learning_rate_of_its_own(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {}

    def fake(run: RunConfig, *_: object, method: str, **__: object) -> RunRecord:
        rates[method] = run.training.learning_rate
        return RunRecord(method, run.training.seed, {"dev_spearman": 1.0})

    monkeypatch.setattr(module, "run_once", fake)
    compare_methods(config, "simcse,simcse(lr=1e-3)", seeds=1)
    assert rates == {"simcse": config.training.learning_rate, "simcse(lr=0.001)": 1e-3}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("simcze", "unknown method 'simcze'"),
        ("simcse(temprature=1)", "unknown key 'method.temprature'"),
        ("simcse(1)", "an argument without a name"),
        ("simcse(lr=0)", "learning_rate"),
        ("simcse,simcse", "names simcse twice"),
        ("simcse(", "cannot be read"),
        ("simcse(temperature=x)", "cannot be read"),
        (",", "names no method"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_trained(
    config: RunConfig, made: list[tuple[str, int]], methods: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compare_methods(config, methods, seeds=1)
    assert "\n" not in str(caught.value)
    assert made == []
    assert not Path(config.training.output).exists()


def test_a_run_that_fails_is_named_and_the_others_go_on(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_train", lambda *_: ("training has diverged", 1))
    study = compare_methods(config, "simcse", seeds=1)
    assert study.rows[0].failed == ("training has diverged",)
    assert "simcse failed: training has diverged" in study.table()


def test_variants_are_labels_with_tables() -> None:
    assert variants("a, b-c(x=1, y='z')") == {
        "a": {"name": "a"},
        "b-c(x=1, y=z)": {"name": "b-c", "x": 1, "y": "z"},
    }


def test_the_table_shows_mean_and_spread() -> None:
    records = [
        RunRecord("a", seed, {"dev_spearman": score}) for seed, score in ((1, 10.0), (2, 12.0))
    ]
    (row,) = rows_of([*records])
    assert (row.mean("dev_spearman"), row.mean("alignment")) == (11, None)
    assert "| a | 2 | 11.00 ± 1.41 | - |" in text_table([row])
