"""The contract of the command line: arguments, streams, exit codes, JSON."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit import __version__
from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods import METHODS
from simcse_kit.methods.simcse import SimCSEConfig
from simcse_kit.training import api as training_api
from simcse_kit.training.study import study
from simcse_kit.training.study.runs import RunRecord
from tests.cli.conftest import Done, Simcse

LINES = ["the cat sat", "a dog ran", "the cat sat"]


def refused(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, one line of error without a traceback."""
    assert (done.code, done.out) == (2, "")
    errors = [line for line in done.err.split("\n") if line.startswith("simcse: error: ")]
    assert len(errors) == 1, done.err
    assert done.err.endswith(errors[0] + "\n")
    assert "Traceback" not in done.err
    assert all(word in errors[0] for word in words), errors[0]


def usage_error(done: Done, *words: str) -> None:
    assert (done.code, done.out) == (2, "")
    assert "Usage: simcse" in done.err
    assert all(word in done.err for word in words), done.err


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ------------------------------------------------------------------ the real entry point


def script(name: str) -> list[str]:
    """Return the console script next to the interpreter, or the module if not installed."""
    found = Path(sys.executable).with_name(name)
    return [str(found)] if found.exists() else [sys.executable, "-m", "simcse_kit"]


@pytest.mark.long
def test_the_installed_command_encodes_standard_input(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    target = tmp_path / "vectors.npy"
    done = subprocess.run(
        [*script("simcse"), "encode", str(tiny_encoder_dir), "-", "--output", str(target)],
        input="\r\n".join(LINES).encode() + b"\r\n\r\n",
        capture_output=True,
    )
    assert done.stdout.decode().startswith(f"3 vectors of 32 dimensions: {target}\nverified, SHA")
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    expected = SentenceEncoder.load(tiny_encoder_dir).encode(LINES)
    np.testing.assert_allclose(np.load(target), expected, atol=1e-6)


def test_the_module_is_the_command_and_its_errors_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simcse_kit", "encode", "mini", "a.txt", "--output", "v.txt"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "--output v.txt", ".npy")


# ------------------------------------------------------------------ usage


def test_version_and_help(simcse: Simcse) -> None:
    assert simcse("--version") == Done(0, f"{__version__}\n", "")
    done = simcse("--help")
    assert done.code == 0
    for command in ("train", "encode", "similarity", "eval", "info", "methods", "presets"):
        assert f"\n  {command} " in done.out


def test_help_of_train_names_every_flag(simcse: Simcse) -> None:
    done = simcse("train", "--help")
    assert done.code == 0
    assert "Usage: simcse train [OPTIONS] DATA...\n" in done.out
    flags = (
        "--model --method --preset --config --output --dev --epochs --max-steps --batch-size --lr "
        "--max-length --seed --columns --label --scale --on-bad-row --set --resume --overwrite "
        "--json"
    )
    for flag in flags.split():
        assert f"\n  {flag} " in done.out


def test_usage_errors(simcse: Simcse) -> None:
    usage_error(simcse("trian"), "No such command")
    usage_error(simcse("encode", "mini"), "INPUT")
    usage_error(simcse("encode", "mini", "a.txt"), "--output")
    usage_error(simcse("train", "a.txt", "--batch-size", "many"), "--batch-size", "integer")
    usage_error(simcse("train", "a.txt", "--batchsize", "8"), "--batchsize")


def test_what_is_unexpected_is_no_user_error(
    simcse: Simcse, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an internal error leaves main() unchanged; Python then prints it and exits with 1
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(SentenceEncoder, "load", fail)
    with pytest.raises(ZeroDivisionError):
        simcse("similarity", "mini", "a", "b")


# ------------------------------------------------------------------ train


def train_arguments(model: Path, texts: Path, output: Path) -> list[str]:
    wanted = {
        "--model": model,
        "--output": output,
        "--max-steps": 4,
        "--batch-size": 8,
        "--lr": 0.001,
        "--set": "evaluation.every=2",
    }
    return ["train", str(texts), *(str(part) for pair in wanted.items() for part in pair)]


def test_train(simcse: Simcse, tiny_encoder_dir: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = train_arguments(tiny_encoder_dir, texts, output)
    done = simcse(*arguments)
    assert done.code == 0, done.err
    assert "4 steps in " in done.out
    assert f"encoder: {output}\n" in done.out
    assert "negatives per anchor" in done.err
    assert "negatives per anchor" not in done.out
    assert SentenceEncoder.load(output).encode(LINES).shape == (3, 32)

    refused(simcse(*arguments), "contains an earlier run", "--resume", "--overwrite")
    refused(simcse(*arguments, "--seed", "7", "--resume"), "training.seed was 42, is 7")
    again = simcse(*arguments, "--resume", "--json")
    assert json.loads(again.out)["steps"] == 4
    info = simcse("info", output, "--json")
    assert json.loads(info.out)["dim"] == 32


def test_train_prints_one_json_document(
    simcse: Simcse, tiny_encoder_dir: Path, texts: Path, pairs: Path, tmp_path: Path
) -> None:
    arguments = train_arguments(tiny_encoder_dir, texts, tmp_path / "out")
    done = simcse("--quiet", *arguments, "--dev", pairs, "--set", "method.head=none", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert set(result) == {
        "output",
        "steps",
        "sentences",
        "seconds",
        "sentences_per_second",
        "peak_memory",
        "score_name",
        "start_score",
        "best_score",
        "best_step",
        "improved",
        "stopped_early",
        "undefined",
        "truncated",
        "unknown",
        "skipped",
        "collapse",
        "made_with",
    }
    assert (result["steps"], result["sentences"]) == (4, 32)
    assert result["score_name"] == "dev_spearman"
    assert "negatives per anchor" not in done.err


def test_flags_win_over_set_file_and_preset(
    simcse: Simcse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def spy(config: Any, **how: Any) -> None:
        seen.append((config, how))
        raise KeyboardInterrupt

    monkeypatch.setattr(training_api, "train", spy)
    file = tmp_path / "run.toml"
    file.write_text("[training]\nseed = 1\nepochs = 5\n", encoding="utf-8")
    flags = (
        f"train a.txt b.csv --preset simcse-sup --config {file} --model m --method simcse "
        "--output o --dev d.tsv --epochs 2 --max-steps 9 --batch-size 16 --lr 0.01 --max-length 40 "
        "--memory-budget 4GB --seed 3 --columns 0,2 --label 1 --scale -1,5 "
        "--on-bad-row skip --set training.seed=2 "
        "--set method.temperature=0.1 --resume --overwrite --allow-call mine"
    )
    assert simcse(*flags.split()).code != 0
    config, how = seen[0]
    flags_given = {"resume": True, "overwrite": True, "allow_changed": False}
    assert how == {**flags_given, "allow_call": ["mine"]}
    assert config.data.train == ["a.txt", "b.csv"]
    assert (config.data.columns, config.data.on_bad_row) == (["0", "2"], "skip")
    assert (config.data.label, config.data.scale) == ("1", [-1.0, 5.0])
    assert (config.data.max_length, config.model.name) == (40, "m")
    assert (config.training.output, config.evaluation.dev) == ("o", "d.tsv")
    training = config.training
    assert (training.epochs, training.max_steps, training.batch_size) == (2, 9, 16)
    assert (training.learning_rate, training.seed) == (0.01, 3)
    assert training.memory_budget == "4GB"
    assert config.method.options["temperature"] == 0.1
    assert config.method.options["mlp_only_train"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no training data"]),
        (["absent.txt"], ["absent.txt"]),
        (["{texts}", "--model", "absent/model"], ["absent/model"]),
        (["{texts}", "--method", "simsce"], ["unknown method 'simsce'", "'simcse'"]),
        (["{texts}", "--preset", "sup"], ["unknown preset 'sup'"]),
        (["{texts}", "--config", "absent.toml"], ["absent.toml"]),
        (["{texts}", "--set", "method.temprature=1"], ["temprature", "'temperature'"]),
        (["{texts}", "--set", "seed=1"], ["--set 'seed=1'"]),
        (["{texts}", "--dev", "absent.tsv"], ["absent.tsv"]),
        (["{texts}", "--batch-size", "0"], ["command line: training.batch_size is 0"]),
        (["{texts}", "--batch-size", "65"], ["64 rows"]),
        (["{texts}", "--on-bad-row", "ignore"], ["'error' or 'skip'"]),
        (["{texts}", "--resume"], ["nothing to resume"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_train_refuses(
    arguments: Sequence[str],
    words: Sequence[str],
    simcse: Simcse,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(texts=texts) for argument in arguments]
    refused(simcse("train", *filled, "--output", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_says_how_to_go_on(
    simcse: Simcse, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_api, "train", interrupted)
    done = simcse("train", texts)
    assert (done.code, done.out) == (1, "")
    assert "interrupted" in done.err
    assert "--resume" in done.err


# ------------------------------------------------------------------ encode


def test_encode_a_file(simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.txt", tmp_path / "v.npy"
    source.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    arguments = ["encode", tiny_encoder_dir, source, "--output", target]
    done = simcse(*arguments, "--json")
    told = json.loads(done.out)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert told == {
        "output": str(target),
        "rows": 3,
        "dim": 32,
        "computed": 3,
        "complete": True,
        "sha256": digest,
        "tokens": {
            "sentences": 2,
            "tokens": 6,
            "cut": 0,
            "unknown": 0,
            "with_unknown": 0,
            "empty": 0,
            "same_ids": 0,
        },
    }
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    vectors = np.load(target)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, encoder.encode(LINES))

    options = ["--normalize", "--pooling", "cls_before_pooler", "--max-length", "4"]
    done = simcse(*arguments, *options, "--batch-size", "1")
    assert done.code == 0
    assert "were cut" in done.err
    other = SentenceEncoder.load(tiny_encoder_dir, pooling="cls_before_pooler")
    expected = other.encode(LINES, max_length=4, normalize=True)
    np.testing.assert_allclose(np.load(target), expected, atol=1e-6)
    assert files_in(tmp_path) == ["a.txt", "v.npy"]


def test_encode_streams_the_same_array(
    simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    # more rows than a first header of one digit has room for, were it not padded
    lines = [f"the cat sat {'a ' * (n % 7)}" for n in range(137)]
    source, target = tmp_path / "a.txt", tmp_path / "v.npy"
    source.write_text("\n".join(lines), encoding="utf-8")
    done = simcse("encode", tiny_encoder_dir, source, "--output", target, "--chunk", "10")
    assert done.out.startswith("137 vectors of 32 dimensions")
    assert done.err.count("\n") <= 1  # no bar if stderr is not a terminal
    mapped = np.load(target, mmap_mode="r")
    expected = SentenceEncoder.load(tiny_encoder_dir).encode(lines)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)
    plain = tmp_path / "plain.npy"
    np.save(plain, np.asarray(mapped))
    assert plain.read_bytes() == target.read_bytes()


def test_encode_leaves_nothing_half_written(
    simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "v.npy"
    target.write_bytes(b"old")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na dog\n\na man\n")))
    done = simcse("encode", tiny_encoder_dir, "-", "--output", target, "--chunk", "1")
    refused(done, "<standard input>:3", "blank")
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == ["v.npy"]


def test_encode_meets_bad_lines_before_a_model_is_opened(
    simcse: Simcse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SentenceEncoder, "load", lambda *_, **__: pytest.fail("opened"))
    source = tmp_path / "a.txt"
    source.write_bytes(b"a cat\n" * 1000 + b"\xff\n")
    done = simcse("encode", "mini", source, "--output", tmp_path / "v.npy")
    refused(done, f"{source}:1001", "UTF-8")


def test_encode_refuses(simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    source, blank = tmp_path / "a.txt", tmp_path / "blank.txt"
    source.write_text("a cat\n", encoding="utf-8")
    blank.write_text("a cat\n\na dog\n", encoding="utf-8")
    (tmp_path / "taken.npy").mkdir()

    def encode(model: str | Path, file: Path, target: str, *more: str) -> Done:
        return simcse("encode", model, file, "--output", tmp_path / target, *more)

    refused(encode(tiny_encoder_dir, blank, "v.npy"), f"{blank}:2", "blank")
    refused(encode(tiny_encoder_dir, source, "v.csv"), ".npy")
    refused(encode(tiny_encoder_dir, source, "no/v.npy"), "does not exist", "no")
    refused(encode(tiny_encoder_dir, source, "taken.npy"), "taken.npy", "cannot be written")
    refused(encode(tiny_encoder_dir, tmp_path / "absent.txt", "v.npy"), "absent.txt")
    refused(encode(tmp_path / "absent", source, "v.npy"), "absent")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--pooling", "meen"), "meen", "mean")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--batch-size", "0"), "batch_size")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--chunk", "0"), "chunk")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--precision", "int4"), "int4", "int8")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--format", "jsonl"), "--format is jsonl")
    refused(encode(tiny_encoder_dir, source, "v/", "--format", "csv"), "--format csv", "npy")
    refused(encode(tiny_encoder_dir, source, "v/", "--shard-rows", "0"), "--shard-rows 0")
    refused(encode(tiny_encoder_dir, source, "v.npy", "--shards", "1/2"), "share a folder")
    for shards in ("0/2", "3/2", "1", "a/b", "1/2/3"):
        refused(encode(tiny_encoder_dir, source, "v/", "--shards", shards), f"--shards {shards}")
    assert files_in(tmp_path) == ["a.txt", "blank.txt", "taken.npy"]


# ------------------------------------------------------------------ similarity, info, catalogue


def test_similarity(simcse: Simcse, tiny_encoder_dir: Path) -> None:
    arguments = ["similarity", tiny_encoder_dir, LINES[0], LINES[1]]
    first, second = SentenceEncoder.load(tiny_encoder_dir).encode(LINES[:2]).astype(float)
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    value = json.loads(simcse(*arguments, "--json").out)
    assert value["similarity"] == pytest.approx(expected, abs=1e-6)
    assert (value["tokens"]["tokens"], value["tokens"]["unknown"]) == (6, 0)
    done = simcse(*arguments)
    assert (done.code, done.out) == (0, f"{value['similarity']:.4f}\n")


def test_info(simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    facts = json.loads(simcse("info", tiny_encoder_dir, "--json").out)
    assert facts["architecture"] == "BertModel"
    assert (facts["dim"], facts["max_length"], facts["dropout"]) == (32, 32, [0.1])
    assert (facts["pooling"], facts["head"], facts["normalize"]) == ("mean", [], False)
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    assert facts["parameters"] == sum(p.numel() for p in encoder.parameters())
    weights = tiny_encoder_dir / "model.safetensors"
    assert facts["files"]["model.safetensors"] == weights.stat().st_size
    shown = simcse("info", tiny_encoder_dir).out
    assert f"fingerprint   {facts['fingerprint']}\n" in shown
    assert "head          none\n" in shown

    # a copy has the same fingerprint, a changed byte another
    copy = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "copy"))
    (copy / "notes.md").write_text("x", encoding="utf-8")
    assert json.loads(simcse("info", copy, "--json").out)["fingerprint"] == facts["fingerprint"]
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    (copy / "model.safetensors").write_bytes(changed)
    assert json.loads(simcse("info", copy, "--json").out)["fingerprint"] != facts["fingerprint"]
    refused(simcse("info", tmp_path / "absent"), "absent")


def test_methods(simcse: Simcse) -> None:
    entries = json.loads(simcse("methods", "--json").out)
    assert list(entries) == list(METHODS)
    entry = entries["simcse"]
    assert (entry["arxiv"], entry["year"]) == ("2104.08821", 2021)
    assert set(entry["options"]) == set(SimCSEConfig.model_fields)
    assert entry["options"]["temperature"]["default"] == 0.05
    shown = simcse("methods").out
    assert "simcse: SimCSE" in shown
    assert "method.temperature = 0.05" in shown


def test_presets(simcse: Simcse) -> None:
    texts = json.loads(simcse("presets", "--json").out)
    assert "2104.08821" in texts["simcse-unsup"]
    shown = simcse("presets").out
    for line in texts["simcse-sup"].strip().split("\n"):
        assert f"  {line}\n" in shown


# ------------------------------------------------------------------ compare-methods


@pytest.mark.long
def test_compare_methods_prints_the_table(
    simcse: Simcse,
    tiny_encoder_dir: Path,
    texts: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trained(run: RunConfig, *_: object, method: str, **__: object) -> RunRecord:
        assert run.training.max_steps == 3
        figures = {"dev_spearman": 100 * run.training.learning_rate, "sentences_per_second": 1.0}
        return RunRecord(method, run.training.seed, figures)

    monkeypatch.setattr(study, "run_once", trained)
    done = simcse(
        *("compare-methods", texts, "--dev", pairs, "--output", tmp_path / "study"),
        *("--model", tiny_encoder_dir, "--steps", 3, "--seeds", 2, "--batch-size", 4),
        *("--methods", "simcse(lr=0.1),simclr(lr=0.2)"),
    )
    assert done.code == 0, done.err
    rows = [line for line in done.out.split("\n") if line.startswith("| s")]
    assert rows[0].startswith("| simclr(lr=0.2) | 2 | 20.00 ± 0.00 |")
    assert rows[1].startswith("| simcse(lr=0.1) | 2 | 10.00 ± 0.00 |")
    assert rows[2].startswith("| start | 1 |")
    assert str(tmp_path / "study" / "study.svg") in done.err


def test_compare_methods_refuses_before_it_trains(
    simcse: Simcse, texts: Path, pairs: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    common = ("compare-methods", texts, "--dev", pairs, "--output", study, "--methods")
    refused(simcse(*common, "simcze"), "unknown method 'simcze'", "simcse")
    refused(simcse(*common, "simcse(temprature=1)"), "method.temprature")
    refused(simcse(*common, "cpc"), "cannot read 'texts' data", "data.documents")
    assert not study.exists()
