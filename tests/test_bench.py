"""The speed benchmark: its driver with fake variants, and a trial run of the real ones."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SPEED = REPOSITORY / "evaluation/speed"

FAKES = """
import os, sys, time
from pathlib import Path

def note(params, what):
    with Path(params["diary"]).open("a") as file:
        file.write(f"{params['name']} {what}\\n")

def sleeps(params, rounds):
    print("libraries may print")
    encode = lambda texts: [[len(text), params["seconds"]] for text in texts]
    rounds.ready(encode=encode, pid=os.getpid())
    while True:
        rounds.wait()
        note(params, "ran")
        time.sleep(params["seconds"])
        rounds.done()

def absent(params, rounds):
    import no_such_package_at_all

def dies(params, rounds):
    rounds.ready()
    rounds.wait()
    print("out of luck", file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return ``harness.driver`` with a copy of the worker and variants made for the test."""
    monkeypatch.syspath_prepend(str(SPEED))
    driver = importlib.import_module("harness.driver")
    (tmp_path / "harness").mkdir()
    (tmp_path / "variants").mkdir()
    worker = tmp_path / "harness/worker.py"
    worker.write_text((SPEED / "harness/worker.py").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "variants/fakes.py").write_text(FAKES, encoding="utf-8")
    monkeypatch.setattr(driver, "WORKER", worker)
    monkeypatch.setattr(driver, "PAUSE", 0.0)
    yield driver
    for name in [name for name in sys.modules if name.split(".")[0] == "harness"]:
        del sys.modules[name]


def rotation(harness: Any, tmp_path: Path, **targets: str) -> Any:
    """Return a rotation of one variant per keyword; the first sleeps 10 ms, the next 20 ms, ..."""
    diary = str(tmp_path / "diary")
    variants = [
        harness.Variant(name, f"fakes:{target}", {"name": name, "diary": diary, "seconds": n / 100})
        for n, (name, target) in enumerate(targets.items(), start=1)
    ]
    setting = harness.Setting(1, {"main": sys.executable}, tmp_path)
    return harness.Rotation(variants, setting, "task")


def test_variants_take_turns_in_separate_processes(harness: Any, tmp_path: Path) -> None:
    with rotation(harness, tmp_path, a="sleeps", b="sleeps") as running:
        running.run(3, warm_up=1)
        vectors = running.vectors(["one", "three"])
        records = running.records
    assert (tmp_path / "diary").read_text().split() == ["a", "ran", "b", "ran"] * 4
    assert records["a"].notes["pid"] != records["b"].notes["pid"]
    assert [len(records[name].wall) for name in "ab"] == [3, 3]
    assert min(records["a"].wall) >= 0.01
    assert min(records["b"].wall) >= 0.02
    # Sleeping takes no CPU time.
    assert min(records["b"].cpu) < 0.02
    np.testing.assert_allclose(vectors["b"], [[3, 0.02], [5, 0.02]])


def test_a_variant_that_cannot_run_is_recorded_with_a_reason(harness: Any, tmp_path: Path) -> None:
    with rotation(harness, tmp_path, a="sleeps", b="absent", c="dies", d="nothing") as running:
        running.run(2)
        records = running.records
    assert len(records["a"].wall) == 2
    assert "no_such_package_at_all" in records["b"].not_run
    assert records["b"].missing
    assert "code 3: out of luck" in records["c"].not_run
    assert "AttributeError" in records["d"].not_run
    assert not records["c"].missing
    assert not records["d"].missing


def test_a_missing_interpreter_is_reported_with_the_remedy(harness: Any, tmp_path: Path) -> None:
    variant = harness.Variant("peer", "fakes:sleeps", {}, python="onnx")
    setting = harness.Setting(1, {"main": sys.executable}, tmp_path)
    with harness.Rotation([variant], setting, "task") as running:
        running.run(1)
    assert "make peers" in running.records["peer"].not_run


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))


@pytest.mark.usefixtures("speed")
def test_ratios_are_ratios_of_medians() -> None:
    from harness.driver import Record
    from harness.stats import add_ratios, summary

    found = {
        "peer": summary(Record(wall=[4.0, 6.0, 100.0], cpu=[8.0, 8.0, 8.0])),
        "ours": summary(Record(wall=[2.0, 3.0, 4.0], cpu=[2.0, 2.0, 2.0])),
        "gone": summary(Record(not_run="no such thing", missing=True)),
    }
    add_ratios(found, baseline="peer", ours="ours")
    assert found["ours"]["speed_over_baseline"]["wall"] == {"median": 2.0, "min": 2.0, "max": 25.0}
    assert found["peer"]["ours_is_faster"]["cpu"]["median"] == 4.0
    assert found["gone"] == {"not_run": "no such thing", "package_missing": True}


@pytest.mark.usefixtures("speed")
def test_loss_curves_are_compared_with_the_noise_of_the_seeds() -> None:
    from harness.training import compare_curves

    near = compare_curves([[3.0, 1.0], [3.0, 1.4]], [[3.0, 1.1], [3.0, 1.5]])
    assert near["difference"] == pytest.approx(-0.1)
    # Two means over two seeds: sqrt(2 * 0.08 / 2).
    assert near["standard_error"] == pytest.approx(0.28284, abs=1e-5)
    assert near["within_noise"]
    assert not compare_curves([[3.0, 1.0], [3.0, 1.01]], [[3.0, 2.0], [3.0, 2.01]])["within_noise"]


@pytest.mark.usefixtures("speed")
def test_texts_are_deterministic_and_long_tailed(tmp_path: Path) -> None:
    from harness.texts import Data, spread

    assert spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert spread(list(range(10)), 5, offset=1) == [1, 3, 5, 7, 9]
    data = Data.find(tmp_path)
    assert data.is_sample
    texts = data.long_tailed(400, 24, 0.8)
    assert texts == data.long_tailed(400, 24, 0.8)
    lengths = np.array([len(text.split()) for text in texts])
    assert 20 < np.median(lengths) < 40
    assert np.quantile(lengths, 0.99) > 3 * np.median(lengths)
    rows = data.triplet_rows(100)
    flat = [text for row in rows for text in row]
    assert len(set(flat)) == len(flat) == 300


@pytest.mark.usefixtures("speed")
def test_new_tables_replace_the_old_ones(tmp_path: Path) -> None:
    from harness.report import BEGIN, END, write_outputs

    def variant(seconds: float) -> dict[str, Any]:
        times = {"median": seconds, "min": seconds, "max": seconds, "seconds": [seconds]}
        ratio = {"median": 4 / seconds, "min": 1.0, "max": 3.0}
        return {
            "wall": times,
            "cpu": times,
            "peak_rss_mb": 100.0,
            "versions": {"torch": "2.13.0"},
            "speed_over_baseline": {"wall": ratio, "cpu": ratio},
            "ours_is_faster": {"wall": {"median": seconds / 2}, "cpu": {"median": 1}},
        }

    task = {
        "group": "Encoding, fp32",
        "title": "a model",
        "baseline": "st-default",
        "ours": "ours",
        "date": "2026-01-01",
        "settings": {"sentences": 7},
        "variants": {
            "ours": variant(2.0),
            "st-default": variant(4.0),
            "st-onnx": {"not_run": "no interpreter", "package_missing": True},
        },
    }
    where = {
        "cores": 2,
        "cpu": "a kind",
        "cpu_flags": ["avx2"],
        "memory_gb": 24,
        "system": "Linux",
        "threads": 2,
    }
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        write_outputs({"environment": where, "tasks": {"encode": task}}, tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("sentence-transformers, defaults: 2.00") == 1
    assert "ONNX: not run: no interpreter." in text
    assert (tmp_path / "results.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tasks"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SPEED / "bench.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_an_unknown_task_is_one_clear_line() -> None:
    done = bench("--only", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "--only nothing: no task starts with this; the tasks are encode-minilm"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_trial_of_encoding_training_and_start_up(tmp_path: Path) -> None:
    """With the sample data and one round, every variant of the main interpreter runs and agrees."""
    pytest.importorskip("sentence_transformers")
    only = [f"--only={task}" for task in ("encode-mini-", "train-minilm-64", "curves", "startup")]
    done = bench(
        "--quick",
        "--rounds=1",
        "--threads=1",
        "--scale=0.01",
        f"--shared={tmp_path}",
        f"--output={tmp_path}",
        *only,
    )
    assert done.returncode == 0, done.stderr
    assert "sample data" in done.stderr
    tasks = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tasks"]
    encoding = tasks["encode-mini-varied"]["variants"]
    assert encoding["st-default"]["max_difference"] < 1e-5
    for key, task in tasks.items():
        for name, variant in task["variants"].items():
            ran = "not_run" not in variant
            assert ran or variant["package_missing"], f"{key} {name}: {variant}"
            assert not ran or variant["wall"]["median"] > 0
    for losses in tasks["curves-unsup"]["curves"].values():
        if isinstance(losses, list) and isinstance(losses[0], list):
            assert all(len(run) == 4 for run in losses)
    assert (tmp_path / "tables.md").stat().st_size > 1000
