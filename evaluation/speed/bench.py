"""Compare the speed with sentence-transformers and the original SimCSE step.

    make bench                                      # all tasks, about an hour
    python evaluation/speed/bench.py --quick        # a trial of three minutes
    python evaluation/speed/bench.py --only train   # the tasks whose names start with "train"
    python evaluation/speed/bench.py --render       # tables and plots of the stored results

Writes results.json, results.svg, curves.svg and the tables in README.md, which also explains the
method. ``--quick`` writes to build/bench-quick instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = ROOT / "build/peers"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="run a small trial, not a measurement")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PREFIX", help="tasks to run"
    )
    parser.add_argument("--list", action="store_true", help="list the tasks and stop")
    parser.add_argument("--render", action="store_true", help="only rewrite tables and plots")
    parser.add_argument("--rounds", type=int, help="measured rounds (5; 2 with --quick)")
    parser.add_argument(
        "--threads", type=int, default=cores, help="threads of every variant (all cores)"
    )
    parser.add_argument(
        "--scale", type=float, help="factor on the number of sentences and of curve steps (1; 0.1)"
    )
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared/data", help="folder of data"
    )
    parser.add_argument("--output", type=Path, help="folder of the results (evaluation/speed)")
    return parser.parse_args(arguments)


def _wanted(options: argparse.Namespace, tasks: dict[str, Any]) -> list[str]:
    if not options.only:
        return [key for key, task in tasks.items() if task.in_quick or not options.quick]
    for prefix in options.only:
        if not any(key.startswith(prefix) for key in tasks):
            sys.exit(f"--only {prefix}: no task starts with this; the tasks are {', '.join(tasks)}")
    return [key for key in tasks if key.startswith(tuple(options.only))]


def _earlier(path: Path, environment: dict[str, object]) -> dict[str, Any]:
    """Return the stored results of other tasks, from the same machine and number of threads."""
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    tasks: dict[str, Any] = document.get("tasks", {})
    if tasks and document["environment"] != environment:
        sys.exit(
            f"{path} was measured in another environment: {document['environment']}, now "
            f"{environment}; move the file away or give --output"
        )
    return tasks


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    # numpy and torch read this when they are imported.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    from harness.driver import Setting
    from harness.environment import environment
    from harness.report import write_outputs
    from harness.task import Bench
    from harness.tasks import TASKS
    from harness.texts import Data

    keys = _wanted(options, TASKS)
    if options.list:
        print("\n".join(keys))
        return 0
    output = options.output or (ROOT / "build/bench-quick" if options.quick else HERE)
    if options.render:
        write_outputs(json.loads((output / "results.json").read_text(encoding="utf-8")), output)
        return 0
    output.mkdir(parents=True, exist_ok=True)
    where = environment(options.threads)
    results = _earlier(output / "results.json", where)
    data = Data.find(options.shared)
    if data.is_sample:
        print(f"{options.shared} not found; using the sample data in data/", file=sys.stderr)
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        # The interpreters that `make peers` installs.
        peers = {folder.name: str(folder / "bin/python") for folder in PEERS.glob("*")}
        pythons = {"main": sys.executable, **peers}
        bench = Bench(
            setting=Setting(options.threads, pythons, Path(work), hurry=options.quick),
            data=data,
            shared=options.shared,
            rounds=options.rounds or (2 if options.quick else 5),
            scale=options.scale or (0.1 if options.quick else 1.0),
            quick=options.quick,
        )
        for key in keys:
            print(f"{key} ...", file=sys.stderr, flush=True)
            results[key] = TASKS[key].result(bench, key)
            failed += _report(key, results[key])
            # Write after every task, so that an interruption loses one task only.
            ordered = {name: results[name] for name in TASKS if name in results}
            write_outputs({"environment": where, "tasks": ordered}, output)
    print(output / "results.json")
    return 1 if failed else 0


def _report(key: str, task: dict[str, Any]) -> list[str]:
    """Print a task's result; return the variants that failed for another reason than a missing
    package."""
    failed = []
    for name, variant in task["variants"].items():
        if "not_run" in variant:
            print(f"  {name}: not run: {variant['not_run']}", file=sys.stderr)
            if not variant["package_missing"]:
                failed.append(f"{key}/{name}")
            continue
        ratio = variant.get("speed_over_baseline", {}).get("wall", {}).get("median")
        print(f"  {name}: {variant['wall']['median']:.4g} s, {ratio} times", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
