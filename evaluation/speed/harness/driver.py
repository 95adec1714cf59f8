"""Driver of the worker processes: start them, run them in rotation, collect the measurements.

Each variant has its own process for the whole task. Within one process, the first variant of a
rotation would pay for memory that the others returned to the system. In fresh processes one after
the other, a change in the machine's load would affect only some variants.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKER = Path(__file__).resolve().with_name("worker.py")
ROOT = WORKER.parents[3]
MAIN = "main"
# Idle OpenMP threads spin for up to 0.2 s after their work, and would slow the next variant.
PAUSE = 0.3
PATIENCE = 1800.0


@dataclass(frozen=True)
class Variant:
    """A measured function in ``variants/``, its parameters, and the name of its interpreter."""

    name: str
    target: str
    params: dict[str, Any] = field(default_factory=dict)
    python: str = MAIN


@dataclass
class Record:
    """The measured rounds of a variant, or the reason why it did not run."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_rss_mb: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    round_notes: list[dict[str, Any]] = field(default_factory=list)
    not_run: str | None = None
    missing: bool = False


class NotRunError(Exception):
    """A variant cannot run; ``missing`` if only because a package is not installed."""

    def __init__(self, reason: str, *, missing: bool = False):
        super().__init__(reason)
        self.missing = missing


@dataclass(frozen=True)
class Setting:
    """Settings of all workers of a run.

    Attributes:
        threads: number of threads of every variant.
        pythons: interpreters by name; ``main`` always exists.
        work: folder for the workers' input and logs.
        hurry: whether to prepare all workers at once, for a trial.
    """

    threads: int
    pythons: dict[str, str]
    work: Path
    hurry: bool = False

    def environment(self) -> dict[str, str]:
        names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")
        given = {f"{name}_NUM_THREADS": str(self.threads) for name in names}
        given |= {
            "BENCH_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(self.work / "datasets"),
            "SIMCSE_CACHE": str(self.work / "corpora"),
            "PYTHONPATH": str(ROOT),
        }
        # With this variable every start would compile all modules again.
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return kept | given


class Worker:
    """The process of one variant."""

    def __init__(self, variant: Variant, setting: Setting, folder: Path):
        self.variant = variant
        python = setting.pythons.get(variant.python)
        if python is None:
            raise NotRunError(f"no interpreter for {variant.python!r}; make peers", missing=True)
        params = folder / f"{variant.name}.json"
        params.write_text(json.dumps(variant.params), encoding="utf-8")
        self._log = folder / f"{variant.name}.log"
        # Two variants may run the same program, which writes to its working directory.
        home = folder / variant.name
        home.mkdir(exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, str(WORKER), variant.target, str(params)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=setting.environment(),
                cwd=home,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer to it."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # the process ended; receive reports the reason
        return self.receive()

    def receive(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            NotRunError: the worker reports an error, ended or hung.
        """
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            last = lines[-1][:300] if lines else "no message"
            raise NotRunError(f"its process ended with code {self._process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotRunError(answer["error"], missing=answer["missing"])
        return answer

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Rotation:
    """The workers of one task, as a context manager.

    Args:
        variants: variants in the order of the rotation.
        setting: settings of all workers.
        name: name of the task, and of a folder below ``setting.work``.
    """

    def __init__(self, variants: list[Variant], setting: Setting, name: str):
        self._folder = setting.work / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._setting = setting
        self._variants = variants
        self._workers: dict[str, Worker] = {}
        self.records = {variant.name: Record() for variant in variants}

    def __enter__(self) -> Rotation:
        # Normally one after the other, because a sweep of batch sizes is a measurement too.
        names = [variant.name for variant in self._variants]
        for group in [names] if self._setting.hurry else [[name] for name in names]:
            for step in (self._start, self._prepared):
                for name in group:
                    try:
                        if self.records[name].not_run is None:
                            step(name)
                    except NotRunError as error:
                        self._drop(name, error)
        return self

    def _start(self, name: str) -> None:
        variant = next(one for one in self._variants if one.name == name)
        self._workers[name] = Worker(variant, self._setting, self._folder)

    def _prepared(self, name: str) -> None:
        answer = self._workers[name].receive()
        self.records[name].versions = answer["versions"]
        self.records[name].notes = answer["notes"]

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def run(self, rounds: int, warm_up: int = 1) -> None:
        """Run every variant once per round. The first ``warm_up`` rounds are not recorded."""
        for number in range(-warm_up, rounds):
            for name in list(self._workers):
                time.sleep(PAUSE)
                try:
                    answer = self._workers[name].ask(do="run")
                except NotRunError as error:
                    self._drop(name, error)
                    continue
                if number < 0:
                    continue
                record = self.records[name]
                record.wall.append(answer["wall"])
                record.cpu.append(answer["cpu"])
                record.peak_rss_mb = answer["peak_rss_mb"]
                if answer["notes"]:
                    record.round_notes.append(answer["notes"])

    def vectors(self, texts: list[str]) -> dict[str, NDArray[Any]]:
        """Return the vectors of ``texts`` from every variant that still runs."""
        import numpy as np

        source = self._folder / "asked.json"
        source.write_text(json.dumps(texts), encoding="utf-8")
        found = {}
        for name in list(self._workers):
            target = self._folder / f"{name}.npy"
            try:
                self._workers[name].ask(do="encode", texts=str(source), vectors=str(target))
                found[name] = np.load(target)
            except NotRunError as error:
                self._drop(name, error)
        return found

    def _drop(self, name: str, error: NotRunError) -> None:
        record = self.records[name]
        record.not_run, record.missing = str(error), error.missing
        record.wall, record.cpu = [], []
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()
