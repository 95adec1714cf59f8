"""Test and measure this toolkit on a GPU, in less than six minutes and without network.

    make gpu-check                                   # on a machine with CUDA
    make gpu-check WHEELS=folder                     # packages that are missing come from a folder
    python evaluation/speed/gpu_check.py --device cpu --quick    # a trial on any machine

Runs the tests with the marker ``gpu``, then the benchmark, and prints tables. The results are
written after every part, so that a failure of one part does not lose the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")


def install(wheels: Path, target: Path) -> list[str]:
    """Install the wheels of a folder whose packages are missing; return their names.

    What is installed already stays, above all the build of torch with CUDA.
    """
    missing = []
    for wheel in sorted(wheels.glob("*.whl")):
        try:
            metadata.version(wheel.name.split("-")[0].replace("_", "-"))
        except metadata.PackageNotFoundError:
            missing.append(wheel)
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--upgrade", "--target", str(target), *map(str, missing)]
        subprocess.run(command, check=True)
    return [wheel.name for wheel in missing]


def machine(device: str) -> dict[str, Any]:
    """Describe the hardware and the software, without the name of the machine."""
    import torch
    from harness.environment import environment

    found: dict[str, Any] = environment(torch.get_num_threads())
    found["versions"] = {name: _version(name) for name in PACKAGES}
    found["gpu"], found["driver"] = "none", ""
    if device != "cpu":
        found["gpu"] = torch.cuda.get_device_name()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            found["driver"] = subprocess.check_output(query, text=True).strip().split("\n")[0]
        except (OSError, subprocess.CalledProcessError):
            found["driver"] = "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    found["line"] = f"{found['gpu']}, driver {found['driver'] or 'none'}, {versions}"
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def prepare(options: argparse.Namespace) -> None:
    """Install what is missing, and set the environment for this process and its children."""
    paths = [str(ROOT)]
    if options.wheels is not None:
        packages = options.work / "packages"
        for name in install(options.wheels, packages):
            print(f"installed {name}", flush=True)
        paths.append(str(packages))
    sys.path[:0] = [str(HERE), *paths]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    os.environ.update(
        PYTHONPATH=os.pathsep.join([str(HERE), *paths]),
        HF_HUB_OFFLINE="1",
        HF_DATASETS_CACHE=str(options.work / "datasets"),
        SIMCSE_CACHE=str(options.work / "corpora"),
        TOKENIZERS_PARALLELISM="true",
        BENCH_THREADS=threads,
    )


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests and the tasks, and return the document, which is also written to a file."""
    from gpu.suite import run_tests
    from gpu.table import goals
    from gpu.tasks import QUICK, TASKS, Bench

    began = time.monotonic()
    unknown = sorted(set(options.only or ()) - set(TASKS))
    if unknown:
        sys.exit(f"unknown tasks: {', '.join(unknown)}; known: {', '.join(TASKS)}")
    document: dict[str, Any] = {"machine": machine(options.device), "tests": None, "tasks": {}}

    def save() -> None:
        document["seconds"] = round(time.monotonic() - began, 1)
        document["goals"] = [] if options.quick else goals(document)
        text = json.dumps(document, indent=1) + "\n"
        options.output.write_text(text, encoding="utf-8")

    save()
    if options.tests:
        processes = 1 if options.quick else max(1, len(os.sched_getaffinity(0)) // 2)
        document["tests"] = run_tests(
            options.work, options.device, options.tests, processes, options.test_seconds
        )
        print(document["tests"]["summary"], flush=True)
        save()
    names = options.only or (QUICK if options.quick else tuple(TASKS))
    bench = Bench(options.work, options.device, options.quick, began + 60 * options.minutes)
    try:
        for name in names:
            started = time.monotonic()
            try:
                if bench.left() < (0 if options.quick else 15):
                    raise TimeoutError("the time was over")
                result = TASKS[name](bench)
            # Whatever fails here must not lose the results of the other tasks.
            except Exception as error:
                result = {"not_run": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
            result["task_seconds"] = round(time.monotonic() - started, 1)
            document["tasks"][name] = result
            print(name, result.get("not_run", f"{result['task_seconds']} s"), flush=True)
            save()
    finally:
        bench.end()
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda (default), or cpu for a trial")
    parser.add_argument(
        "--quick", action="store_true", help="tiny models and few texts, for a trial"
    )
    parser.add_argument(
        "--wheels", type=Path, help="folder with wheels of packages that may be missing"
    )
    parser.add_argument("--minutes", type=float, default=5.7, help="limit of the whole run")
    parser.add_argument("--test-seconds", type=float, default=100, help="limit of the tests")
    parser.add_argument(
        "--tests", nargs="*", help="tests to run (default: tests/gpu); none: no tests"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", help="tasks to measure, such as info-nce"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build/gpu-check", help="scratch folder"
    )
    parser.add_argument("--output", type=Path, help="file for the results")
    options = parser.parse_args()
    if options.tests is None:
        # One file for a trial: all of them take minutes on a CPU.
        options.tests = ["tests/gpu/test_attention.py" if options.quick else "tests/gpu"]
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.output is None:
        options.output = options.work / "gpu.json" if options.quick else HERE / "gpu.json"
    prepare(options)
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit(
            f"torch {torch.__version__} finds no CUDA device here; give a Python whose torch has "
            "CUDA (make gpu-check PYTHON=...), or try the script with --device cpu --quick"
        )
    import transformers

    transformers.utils.logging.disable_progress_bar()
    document = check(options)
    from gpu.table import tables

    print(f"\n{tables(document)}\n\nwritten to {options.output}")


if __name__ == "__main__":
    main()
