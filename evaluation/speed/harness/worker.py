"""Worker process of one variant, which runs a round at each request of the driver.

Requests and answers are lines of JSON on the stdin and stdout of the process; output of libraries
goes to stderr. This module also runs under other interpreters and uses the standard library only.

A variant is a function ``(params, rounds)`` in ``variants/``: it prepares itself, calls
:meth:`Rounds.ready`, and then repeats :meth:`Rounds.wait`, its work, and :meth:`Rounds.done`. If a
library owns the loop, as a trainer does, a callback makes these calls.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "onnxruntime",
    "optimum-onnx",
    "optimum-intel",
    "openvino",
    "nncf",
)


class Finished(BaseException):
    """The driver wants no more rounds. Not an Exception, so that no trainer catches it."""


class Rounds:
    """Connection of a variant to the driver; measures time and memory."""

    def __init__(self, requests: TextIO, answers: TextIO):
        self._requests = requests
        self._answers = answers
        self._encode: Callable[[list[str]], Any] | None = None
        self._began = (0.0, 0.0)
        self._children_before = 0.0

    def ready(self, encode: Callable[[list[str]], Any] | None = None, **notes: Any) -> None:
        """Report readiness. ``encode`` returns vectors for comparison; ``notes`` are recorded."""
        self._encode = encode
        # The memory of an export, here or in a child process, does not count for the rounds.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._children_before = _children_peak_mb()
        self.send({"ready": True, "versions": _versions(), "notes": notes})

    def wait(self) -> None:
        """Wait for the next request, then start the clocks."""
        for line in self._requests:
            request = json.loads(line)
            if request["do"] == "run":
                self._began = (time.perf_counter(), _cpu_seconds())
                return
            if request["do"] != "encode":
                break
            self._save_vectors(request)
        raise Finished

    def done(self, **notes: Any) -> None:
        """Stop the clocks and report the round."""
        wall, cpu = time.perf_counter() - self._began[0], _cpu_seconds() - self._began[1]
        children = _children_peak_mb()
        peak = max(_own_peak_mb(), children if children > self._children_before else 0.0)
        self.send({"wall": wall, "cpu": cpu, "peak_rss_mb": round(peak, 1), "notes": notes})

    def send(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _save_vectors(self, request: dict[str, Any]) -> None:
        import numpy as np

        assert self._encode is not None, "this variant has no vectors"
        texts = json.loads(Path(request["texts"]).read_text(encoding="utf-8"))
        np.save(request["vectors"], np.asarray(self._encode(texts), dtype=np.float32))
        self.send({"saved": True})


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _children_peak_mb() -> float:
    """Return the peak memory of the largest child process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _own_peak_mb() -> float:
    """Return the peak since the last reset. ru_maxrss cannot be reset and survives an exec, so that
    a process would start with the peak of its parent."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    target, params_file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    rounds = Rounds(requests, answers)
    module, _, function = target.partition(":")
    try:
        params = json.loads(Path(params_file).read_text(encoding="utf-8"))
        getattr(importlib.import_module(f"variants.{module}"), function)(params, rounds)
        rounds.send({"error": "the variant ended before its rounds were over", "missing": False})
    except Finished:
        pass
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # Our errors for an extra that is not installed, and Python's own.
        names = {kind.__name__ for kind in type(error).__mro__}
        missing = bool(names & {"ImportError", "MissingExtraError", "NotAvailable"})
        rounds.send({"error": reason[:400], "missing": missing})
    answers.close()
    # Nothing is left to save, and the thread pools of some libraries take long to end.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
