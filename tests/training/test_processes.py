"""Several processes that share each batch train as one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.training.batching.chunking import check_chunking
from simcse_kit.utils.distributed import _BUCKET, ALONE, Processes, _buckets, launched
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import timeless

SCRIPT = Path(__file__).parents[2] / "evaluation" / "reliability" / "processes.py"
CASES = [
    *("InfoNCE, hard negatives", "InfoNCE, 1 row", "InfoNCE, cached, dropout"),
    *("InfoNCE, learned temperature", "MoCo's queue", "BYOL", "prototypical"),
]


def together(
    size: int, folder: Path, *arguments: str, cwd: Path | None = None
) -> list[subprocess.Popen[str]]:
    """Start ``simcse`` in so many processes, as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(size):
        with (folder / f"{rank}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "simcse_kit", *arguments],
                    env=os.environ | told | {"RANK": str(rank), "WORLD_SIZE": str(size)},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd=cwd,
                )
            )
    return running


def said_by(running: list[subprocess.Popen[str]]) -> list[str]:
    """What each printed, once all have ended; none is left behind."""
    try:
        return [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_weights_and_state_are_those_of_one_process(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    told = tmp_path / "told.json"
    options = ["--sizes", "3", "--dtypes", "float64", "--cases", "|".join(CASES)]
    command = [sys.executable, str(SCRIPT), "--model", str(tiny_encoder_dir), *options]
    subprocess.run([*command, "--json", str(told)], check=True, capture_output=True)
    rows = json.loads(told.read_text())["rows"]
    assert [row["case"] for row in rows] == CASES
    for row in rows:
        assert row["moved"] > 1e-3, row
        assert row["largest_difference"], row
        assert max(row["largest_difference"].values()) < 1e-12, row


def file_of(config: RunConfig, folder: Path) -> str:
    path = folder / "given.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    return str(path)


def test_a_run_of_two_is_the_run_of_one(make_config: MakeConfig, tmp_path: Path) -> None:
    # Chunks, so that dropout is drawn alike; 9 rows, which two cannot halve.
    training = {"training": {"chunk_tokens": 40, "batch_size": 9}}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train(make_config(training, name="alone", kind="triplets"))
    finally:
        torch.set_num_threads(threads)
    config = make_config(training, name="shared", kind="triplets")
    running = together(2, tmp_path, "train", "--config", file_of(config, tmp_path), "--json")
    said = said_by(running)
    assert [process.returncode for process in running] == [0, 0], (tmp_path / "0.log").read_text()
    assert json.loads(said[0])["steps"] == 12
    assert said[1] == ""
    assert (tmp_path / "1.log").read_text() == ""
    shared = Path(config.training.output)
    ours, theirs = (load_file(run / "model.safetensors") for run in (alone.output, shared))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=0, atol=1e-4)
    for one, other in zip(timeless(alone.output), timeless(shared), strict=True):
        assert [key for key, _ in one] == [key for key, _ in other]
        assert dict(other) == pytest.approx(dict(one), abs=2e-3)


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


def test_vectors_of_two_are_the_vectors_of_one(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences(40)), encoding="utf-8")
    options = [str(tiny_encoder_dir), str(texts), "--shard-rows", "7", "--output"]
    running = together(2, tmp_path, "encode", *options, "two.npy", "--json", cwd=tmp_path)
    said = said_by(running)
    assert [process.returncode for process in running] == [0, 0], (tmp_path / "0.log").read_text()
    told = json.loads(said[0])
    assert (told["rows"], told["complete"], said[1]) == (40, True, "")
    one = said_by(together(1, tmp_path, "encode", *options, "one.npy", "--json", cwd=tmp_path))
    assert json.loads(one[0])["sha256"] == told["sha256"]


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
    ALONE.meet()
    assert ALONE.agree(lambda: 7) == 7
    assert ALONE.total(weight.grad).tolist() == [2, 2, 2]
    with Processes.met(patience=timedelta(seconds=1)) as processes:
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
