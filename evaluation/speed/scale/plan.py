"""Compare the predictions of `simcse plan` with real runs on one thread.

    python evaluation/speed/scale/plan.py path/to/sentences.txt --sizes 100000

The plan measures the rates on the first 20,000 lines. Then `simcse encode` and `simcse data dedupe`
run on the first N lines of the file. Compared are processor seconds, because other programs on the
machine do not change them much; wall times and the load are recorded as well. Writes plan.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
STEPS = ("encode", "dedupe", "dedupe-near")
# One thread everywhere, so that processor time is the wall time of an idle machine.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def run(*arguments: str) -> tuple[dict[str, float], str]:
    """Run a command; return its times and peak memory, and what it printed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "simcse_kit", "--quiet", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | THREADS
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"simcse {' '.join(arguments)} failed")
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(usage.ru_maxrss / 1000),
    }, printed


def real(step: str, model: str, text: Path, folder: Path) -> dict[str, float]:
    """Run one step on a file."""
    if step == "encode":
        return run("encode", model, str(text), "--output", str(folder / "v.npy"), "--overwrite")[0]
    level = "near" if step == "dedupe-near" else "normal"
    output = ["--output", str(folder / "out.txt"), "--overwrite"]
    return run("data", "dedupe", str(text), "--level", level, *output)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--sizes", default="100000")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--name", default="mixed sentences", help="description of the text")
    parser.add_argument("--steps", default=",".join(STEPS))
    given = parser.parse_args()
    steps = given.steps.split(",")
    path = HERE / "plan.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    with TemporaryDirectory() as name:
        folder = Path(name)
        few = folder / "few.txt"
        copy(given.text, few, 100)
        starts = {step: real(step, given.model, few, folder) for step in steps}
        for size in map(int, given.sizes.split(",")):
            text = folder / "text.txt"
            copy(given.text, text, size)
            options = ["--sentences", str(size), "--step", ",".join(steps), "--model", given.model]
            plan = json.loads(run("plan", *options, "--measure", str(text), "--json")[1])
            rates = {
                rate["step"]: {key: rate[key] for key in ("per_second", "tokens", "bytes")}
                for step in plan["steps"].values()
                for rate in step["rates"]
            }
            for step in steps:
                found = real(step, given.model, text, folder)
                predicted = plan["steps"][step]["seconds"]
                entry: dict[str, Any] = {
                    "sentences": size,
                    "step": step,
                    "model": given.model,
                    "text": given.name,
                    "predicted_seconds": round(predicted, 2),
                    **found,
                    "predicted_over_cpu": round(predicted / found["cpu_seconds"], 3),
                    "start": starts[step],
                    "load_average": round(os.getloadavg()[0], 1),
                    "rates": rates,
                }
                print({key: value for key, value in entry.items() if key != "rates"}, flush=True)
                same = ("sentences", "step", "model", "text")
                runs = [r for r in runs if [r[k] for k in same] != [entry[k] for k in same]]
                runs = sorted([*runs, entry], key=lambda r: (r["step"], r["text"], r["sentences"]))
                path.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


def copy(source: Path, target: Path, count: int) -> None:
    """Copy the first lines of a file."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        out.writelines(islice(lines, count))


if __name__ == "__main__":
    main()
