"""Any configuration is accepted, or refused in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.data.augment.chain import Chain
from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.objective_registry import parse_objective
from simcse_kit.utils.settings import parse_setting
from simcse_kit.utils.sizes import parse_bytes

TEXTS = st.text(max_size=12)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.lists(st.integers(), max_size=3)
)
TABLES = st.sampled_from([*RunConfig.model_fields, "odd"])
KEYS = st.sampled_from(
    [
        *("name", "train", "columns", "batch_size", "learning_rate", "seed", "memory_budget"),
        *("select", "every", "temperature", "schedule", "augment", "max_length", "odd"),
    ]
)
CONFIGS = st.dictionaries(TABLES, st.one_of(LEAVES, st.dictionaries(KEYS, LEAVES, max_size=4)))
CALLS = st.text(st.sampled_from("delterodsinfoc_(0.1,)|='\"[]{}:*- \n"), max_size=40)


def told(make: Callable[[], Any], errors: type[Exception] = SimcseError) -> tuple[Any, str]:
    """Return the result of ``make``, and its error message instead if it fails."""
    try:
        return make(), ""
    except errors as error:
        return None, str(error) or "nothing"


@given(CONFIGS)
@settings(deadline=None, max_examples=60)
def test_any_table_gives_a_run_or_one_line(table: dict[str, Any]) -> None:
    config, said = told(lambda: load_config(overrides=[table]))
    assert "\n" not in said
    if config is not None:
        again = load_config(overrides=[tomllib.loads(config.to_toml())])
        assert again.to_toml() == config.to_toml()


@given(st.one_of(TEXTS, st.from_regex(r"[a-z]+\.[a-z_]+=.{0,20}", fullmatch=True)))
@settings(deadline=None, max_examples=60)
def test_any_setting_gives_a_table_or_one_line(text: str) -> None:
    table, said = told(lambda: parse_setting(text))
    assert said or isinstance(table, dict)


@given(content=st.binary(max_size=80))
@settings(deadline=None, max_examples=50)
def test_any_bytes_give_a_run_or_one_line(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("toml") / "run.toml"
    path.write_bytes(content)
    config, said = told(lambda: load_config(file=path))
    assert config is not None or str(path) in said


@pytest.mark.parametrize(
    "content",
    ["a = " + "[" * 100_000, "a = " + "{b = " * 5_000 + "1" + "}" * 5_000, "a." * 3_000 + "b = 1"],
)
def test_depths_of_toml_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"run\.toml"):
        load_config(file=path)
    assert parse_setting(f"data.{content}")


@given(st.one_of(TEXTS, st.integers(), st.from_regex(r"[0-9.]{1,6} ?[kmgtKMGTiIbB]{0,4}")))
def test_sizes_are_above_nothing(size: str | int) -> None:
    found, said = told(lambda: parse_bytes(size), ValueError)
    assert "4GB" in said if found is None else found >= 1


@given(CALLS)
@settings(deadline=None, max_examples=60)
def test_any_call_is_parsed_or_refused(text: str) -> None:
    for parse in (Chain.parse, parse_objective):
        found, said = told(lambda parse=parse: parse(text))  # type: ignore[misc]
        assert found is not None or said


@given(st.sampled_from(list(METHODS)), st.dictionaries(KEYS, LEAVES, max_size=3))
@settings(deadline=None, max_examples=50)
def test_any_option_of_a_method_is_taken_or_refused(name: str, options: dict[str, Any]) -> None:
    found, said = told(lambda: build_config(name, options))
    assert found is not None or "method." in said
