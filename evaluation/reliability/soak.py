"""An hour of training and an hour of encoding: memory, open files, and whether the bar was right.

    python evaluation/reliability/soak.py TEXT MODEL --json soak.json --plot soak.svg

TEXT: a file of sentences, a line each, of a hundred thousand or more. MODEL: what encodes. Both run
at the same time, one thread each, at the lowest priority, under a terminal of their own, so that
their bars are drawn; the numbers are read from /proc every ten seconds.
"""

from __future__ import annotations

import argparse
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from scipy import stats

EVERY = 10.0
# Allocators settle in the first minutes.
SETTLED = 600.0
BAR = re.compile(r"(\d+)/\d+ \[[\d:]+<([\d:]+),")


@dataclass
class Watched:
    """What was seen of one process."""

    command: list[str]
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    own_megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    bars: list[tuple[float, int, float]] = field(default_factory=list)


def seconds_of(text: str) -> float:
    """``"1:02:03"`` in seconds."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def watch(watched: Watched, folder: Path, minutes: float) -> None:
    """Start a command under a terminal and look at it until the time is over."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.nice(19)
        # A session of its own is a group of its own to Linux, with a priority of its own.
        group = Path("/proc/self/autogroup")
        if group.exists():
            group.write_text("19")
        os.environ |= {"OMP_NUM_THREADS": "1", "SIMCSE_CACHE": str(folder / "cache")}
        os.execv(watched.command[0], watched.command)
    # A bar has no room on a terminal without a width.
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 150, 0, 0))
    began = time.monotonic()

    def read_bars() -> None:
        while True:
            try:
                said = os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                return
            for done, left in BAR.findall(said)[-1:]:
                watched.bars.append((time.monotonic() - began, int(done), seconds_of(left)))

    threading.Thread(target=read_bars, daemon=True).start()
    while time.monotonic() - began < minutes * 60:
        time.sleep(EVERY)
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise SystemExit(f"{watched.command} ended by itself")
        status = Path(f"/proc/{pid}/status").read_text()
        watched.seconds.append(time.monotonic() - began)
        # Resident memory, and of it what is no file: pages of the mapped text count in the first.
        for key, kept in (("VmRSS", watched.megabytes), ("RssAnon", watched.own_megabytes)):
            kept.append(int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1024)
        watched.files.append(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def summary(watched: Watched) -> dict[str, object]:
    """Slopes and extremes, after the first minutes."""
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
    # What the bar said was left, and what it was: the time to the last look, and what it says then.
    promises = []
    for share in (0.25, 0.5, 0.75):
        now, _, left = min(watched.bars, key=lambda bar: abs(bar[0] - share * last[0]))
        was = last[0] - now + last[2]
        promises.append({"minute": now / 60, "said": left / 60, "was": was / 60})
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
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    simcse = [sys.executable, "-m", "simcse_kit"]
    text, root = given.text.resolve(), Path.cwd()
    with TemporaryDirectory() as place:
        folder = Path(place)
        training = [
            *(*simcse, "train", str(text), "--preset", "mini-unsup", "--max-steps", "8000"),
            *("--dev", str(root / "data/sts.tsv"), "--set", "evaluation.every=100"),
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
    if given.json:
        raw = {name: asdict(run) for name, run in runs.items()}
        for name, run in raw.items():
            run["bars"] = run["bars"][:: max(1, len(run["bars"]) // 100)]
            run["command"] = found[name]["command"]
        given.json.write_text(json.dumps({"summary": found, "samples": raw}) + "\n")
    if given.plot:
        draw(runs, given.plot)


def draw(runs: dict[str, Watched], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(runs), figsize=(5 * len(runs), 3.2), layout="constrained", squeeze=False
    )
    for axis, (name, run) in zip(axes[0], runs.items(), strict=True):
        minutes = np.array(run.seconds) / 60
        axis.plot(minutes, run.megabytes, color="#1f6fb2", linewidth=1.2, label="resident")
        axis.plot(minutes, run.own_megabytes, color="#d1701c", linewidth=1.2, label="without files")
        axis.set(title=name, xlabel="minutes", ylabel="MB", ylim=(0, None))
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
