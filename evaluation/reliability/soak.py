"""Watch memory, open files and the progress bar during an hour of training and of encoding.

    cd evaluation/reliability && python soak.py TEXT MODEL --output soak

TEXT is a file with a hundred thousand sentences or more, one per line; MODEL is the encoder. Both
commands run at the same time with one thread each, at the lowest priority and on a terminal of
their own, so that their progress bars are drawn. Memory is read from /proc every ten seconds.
Writes OUTPUT.json (slopes and extremes), OUTPUT.csv (a sample per minute) and OUTPUT.svg.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = 10.0
SAMPLES_A_MINUTE = round(60 / EVERY)
# Allocators settle in the first minutes.
SETTLED = 600.0
BAR = re.compile(r"(\d+)/\d+ \[[\d:]+<([\d:]+),")


@dataclass
class Watched:
    """Command of a process, and the samples that were taken of it."""

    command: list[str]
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    own_megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    bars: list[tuple[float, int, float]] = field(default_factory=list)


def seconds_of(text: str) -> float:
    """Convert ``"1:02:03"`` to seconds."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def watch(watched: Watched, folder: Path, minutes: float) -> None:
    """Start a command on a terminal, take samples, and kill it when the time is over."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.nice(19)
        # Linux gives every session its own scheduling group, with its own priority.
        group = Path("/proc/self/autogroup")
        if group.exists():
            group.write_text("19")
        os.environ |= {"OMP_NUM_THREADS": "1", "SIMCSE_CACHE": str(folder / "cache")}
        os.execv(watched.command[0], watched.command)
    # A terminal without a width leaves no room for the bar.
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    began = time.monotonic()

    def read_bars() -> None:
        while True:
            try:
                shown = os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                return
            for done, left in BAR.findall(shown)[-1:]:
                watched.bars.append((time.monotonic() - began, int(done), seconds_of(left)))

    threading.Thread(target=read_bars, daemon=True).start()
    while time.monotonic() - began < minutes * 60:
        time.sleep(EVERY)
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise SystemExit(f"{watched.command} ended too early")
        status = Path(f"/proc/{pid}/status").read_text()
        watched.seconds.append(time.monotonic() - began)
        # VmRSS includes the pages of mapped files; RssAnon does not.
        for key, kept in (("VmRSS", watched.megabytes), ("RssAnon", watched.own_megabytes)):
            kept.append(int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024)
        watched.files.append(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def summary(watched: Watched) -> dict[str, object]:
    """Return slopes and extremes after the first minutes."""
    seconds = np.array(watched.seconds)
    settled = seconds >= min(SETTLED, seconds[-1] / 3)

    def memory(megabytes: list[float]) -> dict[str, float]:
        numbers = np.array(megabytes)
        line = stats.linregress(seconds[settled] / 3600, numbers[settled])
        half = seconds >= seconds[-1] / 2
        late = stats.linregress(seconds[half] / 3600, numbers[half])
        return {
            "first": numbers[settled][0],
            "median": median(numbers[settled]),
            "last": numbers[-1],
            "largest": numbers.max(),
            "slope_per_hour": line.slope,
            "standard_error": line.stderr,
            "slope_of_second_half": late.slope,
            "standard_error_of_second_half": late.stderr,
        }

    last = watched.bars[-1]
    # Time left by the bar, and in fact: until the last sample, plus what the bar showed then.
    promises = []
    for share in (0.25, 0.5, 0.75):
        now, _, left = min(watched.bars, key=lambda bar: abs(bar[0] - share * last[0]))
        was = last[0] - now + last[2]
        promises.append({"minute": now / 60, "shown": left / 60, "actual": was / 60})
    return {
        "command": " ".join(["simcse", *(Path(part).name for part in watched.command[3:])]),
        "minutes": seconds[-1] / 60,
        "sentences": last[1],
        "megabytes": memory(watched.megabytes),
        "own_megabytes": memory(watched.own_megabytes),
        "open_files": {"least": min(watched.files), "most": max(watched.files)},
        "minutes_left": promises,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", choices=["training", "encoding"])
    parser.add_argument("--output", type=Path, help="path of the results, without a suffix")
    given = parser.parse_args()
    simcse = [sys.executable, "-m", "simcse_kit"]
    text = given.text.resolve()
    with TemporaryDirectory() as place:
        folder = Path(place)
        training = [
            *(*simcse, "train", str(text), "--preset", "mini-unsup", "--max-steps", "8000"),
            *("--dev", str(REPOSITORY / "data/sts.tsv"), "--set", "evaluation.every=100"),
            *("--output", "trained"),
        ]
        encoding = [*simcse, "encode", given.model, str(text), "--output", "vectors.parquet"]
        commands = {"training": training, "encoding": encoding}
        runs = {
            name: Watched(command)
            for name, command in commands.items()
            if given.only in (None, name)
        }
        watchers = [
            threading.Thread(target=watch, args=(run, folder, given.minutes))
            for run in runs.values()
        ]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
    found = {name: summary(run) for name, run in runs.items()}
    print(json.dumps(found, indent=1))
    if given.output:
        given.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        write_samples(runs, given.output.with_suffix(".csv"))
        draw(given.output.with_suffix(".csv"))


def write_samples(runs: dict[str, Watched], path: Path) -> None:
    """Write one sample per minute of every run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "seconds", "resident_mb", "own_mb", "open_files"])
        for name, run in runs.items():
            samples = zip(run.seconds, run.megabytes, run.own_megabytes, run.files, strict=True)
            for *numbers, files in list(samples)[::SAMPLES_A_MINUTE]:
                writer.writerow([name, *(round(number, 1) for number in numbers), files])


def draw(path: Path) -> None:
    """Plot the samples of a CSV file into the SVG of the same name."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "soak", "path.simplify_threshold": 1.0}
    runs: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = [float(row[key]) for key in ("seconds", "resident_mb", "own_mb")]
            runs.setdefault(row["run"], []).append(numbers)

    figure, axes = plt.subplots(
        1, len(runs), figsize=(4.5 * len(runs), 2.8), layout="constrained", squeeze=False
    )
    for axis, (name, samples) in zip(axes[0], runs.items(), strict=True):
        seconds, resident, own = np.array(samples).T
        axis.plot(seconds / 60, resident, color="#1f6fb2", linewidth=1.2, label="resident")
        axis.plot(seconds / 60, own, color="#d1701c", linewidth=1.2, label="without mapped files")
        axis.set(title=name, xlabel="minutes", ylabel="MB", ylim=(0, None))
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
