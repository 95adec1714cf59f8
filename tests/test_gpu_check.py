"""The measurement on a GPU: its goals, its processes, its installation of packages, a trial run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
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


@pytest.mark.long
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
    assert found["tests"]["failed"] == []
    assert found["goals"] == []
    assert "| train-bert-64 | ours-fp32 |" in done.stdout
