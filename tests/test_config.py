"""The configuration: sources, precedence, messages, presets."""

from __future__ import annotations

import math
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config, preset_path, presets
from simcse_kit.errors import ConfigError
from simcse_kit.methods import build_config
from simcse_kit.utils.settings import merge, parse_setting
from simcse_kit.utils.sizes import parse_bytes


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message_of(**sources: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**sources)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ precedence


def test_later_sources_win(tmp_path: Path) -> None:
    default = RunConfig()
    assert (default.training.epochs, default.training.batch_size) == (1, 64)
    file = put(
        tmp_path / "run.toml",
        "[training]\nbatch_size = 100\nlearning_rate = 1e-4\nseed = 1\n[method]\nhead = 'none'\n",
    )
    config = load_config(
        preset="simcse-sup",
        file=file,
        overrides=[
            parse_setting("training.learning_rate=2e-4"),
            parse_setting("training.seed=2"),
            {"training": {"seed": 3}},
        ],
    )
    assert config.training.weight_decay == 0  # the default
    assert config.training.epochs == 3  # the preset
    assert config.training.batch_size == 100  # the file, over the preset's 512
    assert config.training.learning_rate == 2e-4  # --set, over the file
    assert config.training.seed == 3  # the flag, over --set
    assert config.method.options["head"] == "none"
    assert config.method.options["mlp_only_train"] is False


def test_tables_merge_and_lists_are_replaced() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert merge(base, {"a": {"y": [3]}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": 2}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.seed=3", {"training": {"seed": 3}}),
        ("method.temperature = 0.1", {"method": {"temperature": 0.1}}),
        ("model.trust_remote_code=true", {"model": {"trust_remote_code": True}}),
        ('data.columns=["a", "b"]', {"data": {"columns": ["a", "b"]}}),
        ("model.name=bert-base-uncased", {"model": {"name": "bert-base-uncased"}}),
        ("evaluation.dev=a=b.tsv", {"evaluation": {"dev": "a=b.tsv"}}),
        ("trainer.a.b=1", {"trainer": {"a": {"b": 1}}}),
    ],
)
def test_settings(text: str, expected: dict[str, Any]) -> None:
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["training.seed", "seed=3", "=3", ".seed=3", "training.=3", ""])
def test_bad_settings(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not table\.key=value"):
        parse_setting(text)


# ------------------------------------------------------------------ messages


def test_an_unknown_key_is_named_with_its_file_and_the_closest(tmp_path: Path) -> None:
    file = put(tmp_path / "run.toml", "[training]\nbatchsize = 3\n")
    message = message_of(file=file)
    assert message.startswith(
        f"{file}: unknown key 'training.batchsize' (did you mean 'batch_size'?); known: output, "
    )
    assert "unknown key 'trainin' (did you mean 'training'?)" in message_of(
        overrides=[{"trainin": {}}]
    )


def test_the_source_that_is_wrong_is_named(tmp_path: Path) -> None:
    file = put(tmp_path / "run.toml", "[training]\nseed = 3\n")
    message = message_of(preset="simcse-sup", file=file, overrides=[{"training": {"sed": 1}}])
    assert message.startswith("command line: unknown key 'training.sed' (did you mean 'seed'?)")
    message = message_of(
        preset="simcse-sup",
        file=put(file, "[training]\nsed = 3\n"),
        overrides=[{"training": {"seed": 1}}],
    )
    assert message.startswith(f"{file}: unknown key 'training.sed'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\nseed = '3'", "training.seed is '3': input should be a valid integer"),
        ("[training]\nseed = true", "training.seed is True"),
        ("[training]\nseed = -1", "training.seed is -1: input should be greater than or equal"),
        ("[training]\nepochs = '3'", "training.epochs is '3'"),
        ("[training]\nepochs = inf", "training.epochs is inf: input should be a finite number"),
        ("[training]\nlearning_rate = nan", "training.learning_rate is nan"),
        ("[training]\nschedule = 'cubic'", "'linear', 'cosine' or 'constant'"),
        ("[data]\ntrain = 'a.txt'", "data.train is 'a.txt': input should be a valid list"),
        ("[model]\nname = 3", "model.name is 3: input should be a valid string"),
        ("[method]\nname = 3", "method.name is 3"),
        ("model = 'bert'", "model is 'bert': it must be a table, [model]"),
    ],
)
def test_a_wrong_value_is_named(text: str, words: str, tmp_path: Path) -> None:
    file = put(tmp_path / "run.toml", text + "\n")
    message = message_of(file=file)
    assert message.startswith(f"{file}: ")
    assert words in message


def test_whole_numbers_do_for_fractions(tmp_path: Path) -> None:
    config = load_config(file=put(tmp_path / "run.toml", "[training]\nepochs = 3\n"))
    assert config.training.epochs == 3.0


def test_unreadable_files(tmp_path: Path) -> None:
    assert "No such file" in message_of(file=tmp_path / "absent.toml")
    assert "Is a directory" in message_of(file=tmp_path)
    broken = put(tmp_path / "broken.toml", "[training\n")
    assert f"{broken} is not valid TOML" in message_of(file=broken)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe9\n")
    assert "it is not UTF-8 text" in message_of(file=latin)


def test_an_unknown_preset() -> None:
    assert message_of(preset="simcse-unsupp").startswith(
        "unknown preset 'simcse-unsupp' (did you mean 'simcse-unsup'?); known: "
    )
    assert "unknown preset" in message_of(preset="../presets/simcse-sup")


def test_a_configuration_is_fixed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().training.seed = 3  # type: ignore[misc]


# ------------------------------------------------------------------ TOML

NAMES = st.text(string.ascii_lowercase + '_é"\\\n', min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    NAMES,
    st.lists(NAMES, max_size=3),
)


@given(
    st.dictionaries(NAMES.filter(lambda name: name != "name"), VALUES, max_size=4),
    st.floats(1e-9, 1e3),
    st.one_of(st.none(), st.integers(1, 9)),
    st.lists(NAMES, max_size=3),
    st.one_of(st.none(), NAMES),
)
def test_toml_round_trip(
    options: dict[str, Any], rate: float, steps: int | None, files: list[str], dev: str | None
) -> None:
    import tomllib

    config = load_config(
        overrides=[
            {
                "method": {"name": "simcse", **options},
                "training": {"learning_rate": rate, "max_steps": steps},
                "data": {"train": files},
                "evaluation": {"dev": dev},
                "trainer": options,
            }
        ]
    )
    assert load_config(overrides=[tomllib.loads(config.to_toml())]) == config


# ------------------------------------------------------------------ presets


def test_there_are_presets() -> None:
    assert {"simcse-unsup", "simcse-sup"} <= set(presets())


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_valid_and_cites_its_paper(name: str) -> None:
    config = load_config(preset=name)
    options = build_config(config.method.name, config.method.options)
    assert math.isfinite(config.training.learning_rate)
    assert options.model_dump().items() >= config.method.options.items()
    header = preset_path(name).read_text(encoding="utf-8").partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.split("\n"))
    assert re.search(r"arXiv \d{4}\.\d{4,5}", header)
    assert len(header.split("\n")) >= 2


def test_the_papers_settings() -> None:
    # table of hyperparameters in appendix A of arXiv 2104.08821, BERT-base
    unsup, sup = (load_config(preset=name) for name in ("simcse-unsup", "simcse-sup"))
    for config, rate, batch, epochs, only_train in (
        (unsup, 3e-5, 64, 1, True),
        (sup, 5e-5, 512, 3, False),
    ):
        training = config.training
        assert (training.learning_rate, training.batch_size) == (rate, batch)
        assert training.epochs == epochs
        assert config.method.options["mlp_only_train"] is only_train
        assert config.method.options["temperature"] == 0.05
        assert (config.data.max_length, config.evaluation.every) == (32, 125)


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("4GB", 4 * 10**9),
        ("500MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("1.5 gb", 15 * 10**8),
        ("3kib", 3072),
        ("70000", 70000),
        (70000, 70000),
    ],
)
def test_sizes(size: str | int, count: int) -> None:
    assert parse_bytes(size) == count


@pytest.mark.parametrize("size", ["4 bananas", "GB", "", "-1GB", "0", 0, -3, 1.5, True, "1e9"])
def test_what_is_no_size_is_refused(size: Any) -> None:
    message = message_of(overrides=[{"training": {"memory_budget": size}}])
    assert message == (
        f"command line: training.memory_budget is {size!r}: must be a size such as 4GB, 500MB, "
        "2GiB or a number of bytes"
    )


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_file_alone_lets_no_code_of_a_model_run(tmp_path: Path, value: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"[model]\ntrust_remote_code = {value}\n", encoding="utf-8")
    granted = [{"model": {"trust_remote_code": True}}]
    if value == "true":
        with pytest.raises(ConfigError, match=r"add --set model\.trust_remote_code=true") as caught:
            load_config(file=file)
        assert "\n" not in str(caught.value)
        assert load_config(file=file, overrides=iter(granted)).model.trust_remote_code
    else:
        assert not load_config(file=file).model.trust_remote_code
