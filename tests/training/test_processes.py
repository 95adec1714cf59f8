"""Several processes that share each batch train like a single one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from simcse_kit.cli.main import app
from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.training.batching.chunking import check_chunking
from simcse_kit.utils.distributed import _BUCKET, ALONE, Processes, _buckets, launched
from tests.small_data import run_config, sentences, write_corpus
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import timeless

SCRIPT = Path(__file__).parents[2] / "evaluation" / "reliability" / "processes.py"
CASES = [
    *("InfoNCE, hard negatives", "InfoNCE, 1 row", "InfoNCE, cached, dropout"),
    *("InfoNCE, learned temperature", "MoCo's queue", "BYOL", "prototypical"),
    "graded pairs, cached",
    "distillation, cached",
]


TEXTS = "texts.txt"
ENCODE = ["--pooling", "mean", "--shard-rows", "7", "--output"]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def together(
    size: int,
    folder: Path,
    *arguments: str,
    program: Sequence[str] = ("-m", "simcse_kit"),
    cwd: Path | None = None,
) -> list[subprocess.Popen[str]]:
    """Start a program in several processes, as a launcher does."""
    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(size):
        with (folder / f"{rank}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, *program, *arguments],
                    env=os.environ | launch | {"RANK": str(rank), "WORLD_SIZE": str(size)},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=cwd,
                )
            )
    return running


def printed_by(running: list[subprocess.Popen[str]]) -> list[str]:
    """Return what each process printed, once all have ended."""
    try:
        return [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_weights_and_state_are_those_of_one_process(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    results = tmp_path / "results.json"
    options = ["--sizes", "3", "--dtypes", "float64", "--cases", "|".join(CASES)]
    command = [sys.executable, str(SCRIPT), "--model", str(tiny_encoder_dir), *options]
    subprocess.run([*command, "--json", str(results)], check=True, capture_output=True)
    rows = json.loads(results.read_text())["rows"]
    assert [row["case"] for row in rows] == CASES
    for row in rows:
        assert row["moved"] > 1e-3, row
        assert row["largest_difference"], row
        assert max(row["largest_difference"].values()) < 1e-12, row


def file_of(config: RunConfig, folder: Path) -> str:
    path = folder / "given.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    return str(path)


# Two commands, one after the other, since the start of a process takes longer than either.
BOTH = """
import json, os, sys
from simcse_kit.cli.main import app, main
(first, arguments), (second, sys.argv[1:]) = json.loads(sys.argv[1])
os.environ["MASTER_PORT"] = first
app(arguments, standalone_mode=False)
os.environ["MASTER_PORT"] = second
main()
"""
# Chunks, so that dropout is drawn in the same way; 9 rows, which two processes cannot halve.
NINE = {"training": {"chunk_tokens": 40, "batch_size": 9}}


@dataclass(frozen=True)
class Shared:
    """What two processes did together.

    Attributes:
        folder: holds the encoder that they trained, ``encoder``, and the vectors, ``two.npy``.
        results: the result of each command, as JSON.
    """

    folder: Path
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def shared_by_two(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Shared:
    """A training run and an encoding, each by the same two processes."""
    folder = tmp_path_factory.mktemp("shared")
    corpus = write_corpus(folder, "triplets")
    config = run_config(tiny_encoder_dir, corpus, folder / "encoder", NINE)
    (folder / "texts.txt").write_text("\n".join(sentences(40)), encoding="utf-8")
    commands = [
        (free_port(), ["train", "--config", file_of(config, folder), "--json"]),
        (free_port(), ["encode", *ENCODE, "two.npy", "--json", "--", str(tiny_encoder_dir), TEXTS]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMCSE_CACHE", str(folder / "cache"))
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        running = together(2, folder, json.dumps(commands), program=["-c", BOTH], cwd=folder)
    printed = printed_by(running)
    assert [process.returncode for process in running] == [0, 0], (folder / "0.log").read_text()
    # The first process alone prints and logs.
    assert printed[1] == ""
    assert (folder / "1.log").read_text() == ""
    return Shared(folder, [json.loads(line) for line in printed[0].splitlines()])


@pytest.mark.long
def test_a_run_of_two_is_the_run_of_one(shared_by_two: Shared, make_config: MakeConfig) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train(make_config(NINE, name="alone", kind="triplets"))
    finally:
        torch.set_num_threads(threads)
    assert shared_by_two.results[0]["steps"] == 12
    shared = shared_by_two.folder / "encoder"
    ours, theirs = (load_file(run / "model.safetensors") for run in (alone.output, shared))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=1e-4)
    for one, other in zip(timeless(alone.output), timeless(shared), strict=True):
        assert [key for key, _ in one] == [key for key, _ in other]
        assert dict(other) == pytest.approx(dict(one), abs=2e-3)


@pytest.mark.long
def test_vectors_of_two_are_the_vectors_of_one(
    shared_by_two: Shared, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = shared_by_two.results[1]
    assert (result["rows"], result["complete"]) == (40, True)
    monkeypatch.chdir(shared_by_two.folder)
    alone = ["encode", *ENCODE, "one.npy", "--json", "--", str(tiny_encoder_dir), TEXTS]
    done = CliRunner().invoke(app, alone, catch_exceptions=False)
    assert json.loads(done.stdout)["sha256"] == result["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_is_killed_the_others_end_and_the_run_goes_on(
    victim: int, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config({"training": {"max_steps": 3000, "chunk_tokens": 40}})
    arguments = ["train", "--config", file_of(config, tmp_path)]
    running = together(2, tmp_path, *arguments)
    checkpoints = Path(config.training.output) / "checkpoints"
    while not list(checkpoints.glob("checkpoint-*")):
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    running[victim].kill()
    killed = time.monotonic()
    other = running[1 - victim]
    other.communicate(timeout=60)
    assert other.returncode == 2
    running[victim].communicate()
    assert time.monotonic() - killed < 60
    log = (tmp_path / f"{1 - victim}.log").read_text()
    assert f"process {1 - victim} of 2 has lost the others" in log
    assert "Traceback" not in log
    again = together(2, tmp_path, *arguments, "--resume")
    try:
        began = time.monotonic()
        while "resuming from step" not in (tmp_path / "0.log").read_text():
            assert time.monotonic() - began < 120
            assert all(process.poll() is None for process in again)
            time.sleep(0.1)
    finally:
        for process in again:
            process.kill()
            process.communicate()


# As Ray Train does, the group exists before the package needs one.
GIVEN = """
from datetime import timedelta
import torch
from torch import distributed
from simcse_kit.utils.distributed import Processes
distributed.init_process_group("gloo")
for _ in range(2):
    with Processes.joined(patience=timedelta(minutes=1)) as processes:
        print(processes.all_reduce_sum(torch.ones(1)).item())
print(distributed.is_initialized())
distributed.destroy_process_group()
"""


@pytest.mark.long
def test_a_group_that_exists_already_is_used_and_kept(tmp_path: Path) -> None:
    running = together(2, tmp_path, program=["-c", GIVEN])
    assert printed_by(running) == ["2.0\n2.0\nTrue\n"] * 2, (tmp_path / "0.log").read_text()


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, (0, 1)), ({"WORLD_SIZE": "1"}, (0, 1)), ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3))],
)
def test_the_launcher_tells(
    given: dict[str, str], found: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


@pytest.mark.parametrize("rank", ["", "x", "2", "-1"])
def test_an_odd_environment_is_refused(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(ConfigError, match=f"RANK={rank}, WORLD_SIZE=2; start several"):
        launched()


def test_alone_nothing_is_exchanged() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 2.0)
    ALONE.average_gradients([weight])
    ALONE.barrier()
    assert ALONE.from_first(lambda: 7) == 7
    assert ALONE.all_reduce_sum(weight.grad).tolist() == [2, 2, 2]
    with Processes.joined(patience=timedelta(seconds=1)) as processes:
        assert processes is ALONE


def test_buckets_hold_every_gradient_once() -> None:
    sizes = [3, _BUCKET, 5, _BUCKET - 5, 1]
    weights = [torch.empty(size, device="meta") for size in sizes]
    weights.insert(1, torch.empty(2, dtype=torch.float64, device="meta"))
    found = list(_buckets(weights))
    assert [id(weight) for bucket in found for weight in bucket] == [id(w) for w in weights]
    assert [[w.numel() for w in bucket] for bucket in found] == [
        *([3], [2], [_BUCKET], [5, _BUCKET - 5], [1])
    ]


def test_a_loss_beyond_the_embeddings_is_not_shared() -> None:
    from simcse_kit.config import TrainingSection
    from simcse_kit.methods.simcse import SimCSE, SimCSEConfig

    options = SimCSEConfig(mlm_weight=0.1)
    check_chunking(SimCSE, options, TrainingSection())
    with pytest.raises(ConfigError, match=r"2 processes cannot share .* one process"):
        check_chunking(SimCSE, options, TrainingSection(), 2)
