"""The measurement on a GPU: its goals, its processes, its installation of packages, a trial run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SPEED = Path(__file__).resolve().parents[1] / "evaluation/speed"
FAKES = """
import os

def counts(params, rounds):
    rounds.ready(lambda texts: [len(text) for text in texts], opened=params["start"])
    number = params["start"]
    while True:
        rounds.wait()
        number += 1
        rounds.done(number=number)

def fails(params, rounds):
    raise ValueError("bad\\nluck")

def dies(params, rounds):
    rounds.ready()
    rounds.wait()
    os._exit(3)
"""


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that imports a part of the measurement."""
    monkeypatch.syspath_prepend(str(SPEED))
    loaded = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in {name for name in sys.modules if name.split(".")[0] in ("gpu", "harness")} - loaded:
        del sys.modules[name]


def document(**speeds: float) -> dict[str, Any]:
    systems = {name.replace("_", "-"): {"steps_per_second": of} for name, of in speeds.items()}
    return {
        "machine": {"line": "a card"},
        "tests": None,
        "tasks": {"train-bert-64": {"systems": systems}, "info-nce": {"ratio": 1.6}},
    }


def test_goals_are_reached_missed_or_not_measured(part: Any) -> None:
    given = document(ours_bf16=30.0, ours_bf16_compile=45.0, st_bf16=10.0, original_bf16=20.0)
    found = {goal["goal"]: goal for goal in part("gpu.table").goals(given)}
    first = found["BERT-base, batch 64: ours / sentence-transformers, bf16"]
    assert (first["value"], first["reached"]) == (4.5, True)
    second = found["BERT-base, batch 64: ours / original step, bf16"]
    assert (second["value"], second["reached"]) == (2.25, False)
    assert found["InfoNCE 65,536 x 384: time over its matrix products"]["reached"] is False
    assert found["gradient caching: time over the plain step"]["value"] is None
    assert found["BERT-base, batch 512: share of the card's bf16 rate"]["value"] is None


def test_the_table_shows_every_system_and_what_did_not_run(part: Any) -> None:
    table = part("gpu.table")
    given = document(ours_bf16=30.0, st_bf16=10.0)
    given["tasks"]["train-bert-64"]["systems"]["st-fp32"] = {"not_run": "it did not answer"}
    given["goals"] = table.goals(given)
    text = table.tables(given)
    assert "| train-bert-64 | ours-bf16 | 30.0 |" in text
    assert "| train-bert-64 | st-fp32 | not run: it did not answer |" in text
    assert "| 3.0 | reached |" in text
    assert "| 1.6 | MISSED |" in text


def test_busy_time_is_the_union_of_intervals(part: Any) -> None:
    covered = part("gpu.profiling").covered
    assert covered([(5.0, 7.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.0)]) == 5.0
    assert covered([]) == 0.0


def test_a_profile_counts_launches_waits_and_busy_time(part: Any) -> None:
    import torch

    kinds = torch.autograd.DeviceType

    def event(name: str, start: float = 0.0, end: float = 0.0, **more: Any) -> SimpleNamespace:
        span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
        given = {"device_type": kinds.CPU, "is_user_annotation": False} | more
        return SimpleNamespace(name=name, time_range=span, **given)

    on_device = {"device_type": kinds.CUDA}
    events = [
        *(event(name) for name in ("aten::mm", "cudaLaunchKernel", "cuLaunchKernelEx")),
        *(event(name) for name in ("cudaStreamSynchronize", "cudaMemcpyAsync")),
        event("gemm", 0.0, 2e6, **on_device),
        event("gemm", 1e6, 3e6, **on_device),
        event("Memcpy DtoH (Device -> Pageable)", 5e6, 6e6, **on_device),
        event("Optimizer.step", 0.0, 9e6, **on_device | {"is_user_annotation": True}),
        event("Stream Sync", 0.0, 9e6, **on_device),
    ]
    found = part("gpu.profiling").summary(SimpleNamespace(events=lambda: events))
    assert found["busy_seconds"] == 4.0
    assert (found["operators"], found["launches"], found["waits"]) == (1, 2, 1)
    assert (found["copies_to_host"], found["copies_to_device"]) == (1, 0)
    assert found["slowest_kernels"]["gemm"] == 4.0


@pytest.mark.long
def test_tests_that_take_too_long_are_ended_and_the_others_are_counted(
    part: Any, tmp_path: Path
) -> None:
    lines = "import time, pytest\npytestmark = pytest.mark.gpu\ndef test_good(): pass\n"
    lines += "def test_bad(): assert 1 == 2\ndef test_slow(): time.sleep(600)\n"
    (tmp_path / "test_some.py").write_text(lines, encoding="utf-8")
    found = part("gpu.suite").run_tests(tmp_path, "cpu", [str(tmp_path)], 1, 20)
    assert (found["passed"], found["failed"]) == (1, 2)
    reasons = {name.partition("::")[2]: why for name, why in found["failures"].items()}
    assert reasons.keys() == {"test_bad", "test_slow"}
    assert "assert 1 == 2" in reasons["test_bad"]
    assert reasons["test_slow"] == "it was running at the limit of 20 s"


@pytest.mark.long
def test_a_test_that_ends_the_process_is_named(part: Any, tmp_path: Path) -> None:
    lines = "import os, pytest\npytestmark = pytest.mark.gpu\ndef test_good(): pass\n"
    lines += "def test_crash(): os._exit(7)\n@pytest.mark.skip(reason='no card')\n"
    (tmp_path / "test_some.py").write_text(lines + "def test_no(): pass\n", encoding="utf-8")
    found = part("gpu.suite").run_tests(tmp_path, "cpu", [str(tmp_path)], 1, 60)
    assert found["passed"] == 1
    assert list(found["failures"].values()) == ["its process ended with code 7"]


@pytest.mark.long
def test_a_process_serves_several_tasks_and_starts_again_after_an_error(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fakes.py").write_text(FAKES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = part("gpu.pool")
    worker = pool.Worker("fake", tmp_path, "cpu")
    try:
        for start in (0, 10):
            worker.start("task", "fakes:counts", {"start": start})
            assert worker.answer(60)["notes"] == {"opened": start}
            for number in (1, 2):
                answer = worker.ask(60, "run")
                assert answer["notes"] == {"number": start + number}
                assert answer["seconds"] >= 0
            assert worker.ask(60, "vectors", texts=["a", "bc"])["vectors"] == [1, 2]
            assert worker.ask(60, "free") == {}
            worker.ask(60, "stop")
        worker.start("task", "fakes:fails", {})
        with pytest.raises(pool.NotMeasuredError, match="ValueError: bad luck"):
            worker.answer(60)
        worker.start("task", "fakes:dies", {})
        worker.answer(60)
        with pytest.raises(pool.NotMeasuredError, match="ended with code 3"):
            worker.ask(60, "run")
    finally:
        worker.end()


def test_only_missing_packages_are_installed(part: Any, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("torch", "simcse_fake"):
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "here = True\n")
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", "")
    target = tmp_path / "target"
    installed = part("gpu_check").install(wheels, target)
    assert installed == ["simcse_fake-1.0-py3-none-any.whl"]
    assert sorted(path.name for path in target.glob("*.py")) == ["simcse_fake.py"]


@pytest.mark.slow
def test_a_trial_measures_on_the_cpu_and_runs_tests(tmp_path: Path) -> None:
    command = [sys.executable, "evaluation/speed/gpu_check.py", "--device", "cpu", "--quick"]
    command += ["--work", str(tmp_path), "--only", "train-bert-64", "rate"]
    done = subprocess.run(
        command, cwd=SPEED.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    systems = found["tasks"]["train-bert-64"]["systems"]
    assert all(system.get("steps_per_second", 0) > 0 for system in systems.values()), systems
    assert found["tasks"]["rate"]["float32_tflops"] > 0
    assert found["tests"]["passed"] > 0
    assert found["tests"]["failures"] == {}
    assert found["goals"] == []
    assert "| train-bert-64 | ours-fp32 |" in done.stdout
