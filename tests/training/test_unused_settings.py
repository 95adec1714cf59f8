"""Settings that have no effect are logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.training.plan import StartOptions
from simcse_kit.training.prepare import check, prepare
from tests.training.conftest import MakeConfig

pytestmark = pytest.mark.usefixtures("no_weights")

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("texts", {"method": {"hard_negative_alpha": 2.0}}, "texts have no hard negatives"),
    ("pairs", {"method": {"hard_negative_alpha": 2.0}}, "pairs have no hard negatives"),
    ("pairs", {"method": {"objective": "simple", "temperature": 0.1}}, "has no temperature"),
    ("texts", {"method": {"mlm_probability": 0.3}}, "method.mlm_weight is 0"),
    (
        "texts",
        {"method": {"head": "none", "mlp_only_train": False}},
        "method.mlp_only_train = False has no effect, because method.head is 'none'",
    ),
    ("pairs", {"method": {"name": "dual_encoder", "hard_negative_alpha": 3.0}}, "no hard neg"),
    ("texts", {"method": {"name": "moco", "version": "v1", "hidden_size": 8}}, "one linear layer"),
    ("texts", {"method": {"name": "esimcse", "queue_size": 0, "momentum": 0.5}}, "queue_size is 0"),
    ("texts", {"method": {"name": "diffcse", "rtd_weight": 0, "fill": "sample"}}, "rtd_weight is"),
    ("texts", {"method": {"name": "swav", "queue_start": 0.5}}, "queue_size is 0"),
    ("texts", {"data": {"augment": "identity"}}, "identity changes no text"),
    (
        "texts",
        {"evaluation": {"on_collapse": "stop", "trace_every": 0}},
        "trace_every = 0 nothing is measured",
    ),
    ("texts", {"evaluation": {"every": 100}}, "more than the 12 steps"),
]


@pytest.mark.parametrize(("kind", "table", "message"), CASES)
def test_settings_without_effect_are_named(
    make_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    table: dict[str, Any],
    message: str,
) -> None:
    check(make_config(table, kind=kind))
    said = [text for text in caplog.messages if message in text]
    assert len(said) == 1, caplog.messages


def test_held_out_rows_beside_a_dev_set(
    make_config: MakeConfig, dev_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    check(make_config({"evaluation": {"dev": str(dev_file), "held_out": 8}}))
    assert "evaluation.held_out = 8 has no effect" in caplog.text


def test_defaults_are_not_named(make_config: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    needed: dict[str, Any] = {
        "prototypical": {"queue_size": 64, "clusters": [2]},
        "distill": {"teachers": ["mini"]},
    }
    for name in METHODS:
        if "texts" in METHODS.resolve(name).reads:
            check(make_config({"method": {"name": name, **needed.get(name, {})}}))
    assert not [text for text in caplog.messages if "no effect" in text]


def test_distances_beyond_the_rows_are_said() -> None:
    options = build_config("cpc", {"distances": 3})
    assert options.unused(DataSpec("documents", 3)) == []
    (said,) = options.unused(DataSpec("documents", 2))
    assert "method.distances = 3 predicts no further than the 2 next sentences" in said


def test_a_guide_of_single_texts_needs_a_margin(make_config: MakeConfig) -> None:
    guide = {"method": {"guide": "mini"}}
    with pytest.raises(ConfigError, match=r"excludes nothing from texts.*guide_margin above 0"):
        check(make_config(guide))
    check(make_config(guide, {"method": {"guide_margin": 0.1}}))
    check(make_config(guide, kind="pairs"))


def test_flags_without_effect_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="--allow-changed applies only to a resumed run"):
        prepare(make_config(), StartOptions(allow_changed=True))


def test_warmup_before_a_constant_rate_is_made(make_config: MakeConfig) -> None:
    settings = {"training": {"schedule": "constant", "warmup_ratio": 0.5}}
    plan = prepare(make_config(settings), StartOptions())
    assert plan.arguments.lr_scheduler_type == "constant_with_warmup"
    assert plan.arguments.warmup_steps == 6


def test_a_missing_model_is_found_before_the_text_is_read(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    for table in ({"model": {"name": "./nowhere"}}, {"method": {"guide": "./nowhere"}}):
        with pytest.raises(ModelError, match=r"no such model folder: '\./nowhere'"):
            check(make_config(table, kind="pairs"))
    assert not (tmp_path / "cache").exists()
