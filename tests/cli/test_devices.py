"""The option --device of every command that loads an encoder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.search import SearchIndex
from tests.cli.conftest import Simcse
from tests.cli.test_commands import files_in, refused
from tests.test_remedies import commands

COMMANDS = {
    "encode": "{model} {texts} --output {out}/vectors.npy",
    "eval": "{model} --tasks {pairs} --resamples 0 --json {out}/scores.json",
    "compare": "{model} {model} --tasks {pairs} --resamples 200 --json {out}/scores.json",
    "similarity": "{model} one two",
    "postprocess": "{model} --post standardize --fit {texts} --output {out}/post",
    "compare-methods": "{texts} --methods simcse --dev {pairs} --output {out}/study --steps 1 "
    "--seeds 1 --model {model} --batch-size 4",
    "data mine": "{mined} --output {out}/mined.csv --model {model}",
    "data check-leak": "{texts} --against {pairs} --matches {out}/matches.tsv --model {model}",
    "index build": "{model} {texts} --output {out}/index",
    "index add": "{index} {mined} --text sent0",
    "search": "{index} one",
}
# `train` is tested with the settings of training, `serve` does not end, and the devices of `plan`
# are those of other machines.
OTHERS = {"train", "serve", "plan"}


def test_every_command_with_the_option_is_tested_here() -> None:
    found = {name for name, options in commands().items() if "--device" in options}
    assert found - OTHERS == set(COMMANDS)


@pytest.fixture
def words(
    tiny_encoder_dir: Path, texts: Path, pairs: Path, tmp_path: Path, request: Any
) -> dict[str, Path]:
    mined = tmp_path / "pairs.csv"
    rows = [line.split("\t")[1:] for line in pairs.read_text().splitlines()]
    mined.write_text("sent0,sent1\n" + "".join(f'"{one}","{two}"\n' for one, two in rows))
    out, index = tmp_path / "out", tmp_path / "index"
    out.mkdir()
    if "index" in request.node.name or "search" in request.node.name:
        SearchIndex.build(SentenceEncoder.load(tiny_encoder_dir), ["one", "two"], index)
    found = {"model": tiny_encoder_dir, "texts": texts, "pairs": pairs, "mined": mined}
    return {**found, "out": out, "index": index}


def arguments(command: str, words: dict[str, Path]) -> list[str]:
    return [*command.split(), *shlex.split(COMMANDS[command].format(**words))]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_absent_gpu_is_one_line_and_nothing_is_written(
    simcse: Simcse, words: dict[str, Path], command: str
) -> None:
    done = simcse(*arguments(command, words), "--device", "cuda")
    refused(done, "device 'cuda' cannot be used", "use auto or cpu")
    assert done.err.count("\n") == 1
    assert files_in(words["out"]) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_devices_are_refused(simcse: Simcse, words: dict[str, Path], command: str) -> None:
    done = simcse(*arguments(command, words), "--device", "gpu")
    refused(done, "device 'gpu' cannot be used", "allowed: auto, cpu, cuda, cuda:N, mps")
    assert files_in(words["out"]) == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "compare-methods"])
def test_the_device_reaches_the_encoder(
    simcse: Simcse, words: dict[str, Path], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(*given: object, device: str = "auto", **options: object) -> SentenceEncoder:
        asked.append(device)
        return original(*given, device=device, **options)  # type: ignore[arg-type]

    original = SentenceEncoder.load
    monkeypatch.setattr(SentenceEncoder, "load", load)
    done = simcse(*arguments(command, words), "--device", "cpu")
    assert done.code == 0, done.err
    assert set(asked) == {"cpu"}


@pytest.mark.slow
def test_a_study_trains_and_measures_on_the_device(simcse: Simcse, words: dict[str, Path]) -> None:
    done = simcse(*arguments("compare-methods", words), "--device", "cpu")
    assert done.code == 0, done.err
    (run,) = (words["out"] / "study").glob("runs/*/run.toml")
    assert 'device = "cpu"' in run.read_text()


def test_int8_chooses_the_cpu(
    simcse: Simcse, words: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(*_: object, device: str, **__: object) -> SentenceEncoder:
        asked.append(device)
        raise ModelError("not loaded")

    monkeypatch.setattr(SentenceEncoder, "load", load)
    for precision in ("int8", "fp32"):
        refused(simcse(*arguments("encode", words), "--precision", precision), "not loaded")
    assert asked == ["cpu", "auto"]
