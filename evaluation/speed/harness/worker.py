"""One variant in a process of its own, which works when the driver says so.

Requests and answers are lines of JSON on the stdin and stdout that the process was started with;
what libraries print goes to stderr. Runs under other interpreters too, so this module needs
nothing but the standard library.

A variant is a function ``(params, rounds)`` in ``variants/``: it prepares itself, says
:meth:`Rounds.ready`, and then repeats :meth:`Rounds.wait`, its work, :meth:`Rounds.done`. A loop
that belongs to someone else, such as a trainer's, does the same from a callback.
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
    """The driver wants no more rounds. Not an Exception, so that no trainer swallows it."""


class Rounds:
    """The driver as a variant sees it; keeps the clocks."""

    def __init__(self, requests: TextIO, answers: TextIO):
        self._requests = requests
        self._answers = answers
        self._encode: Callable[[list[str]], Any] | None = None
        self._began = (0.0, 0.0)
        self._children_before = 0.0

    def ready(self, encode: Callable[[list[str]], Any] | None = None, **notes: Any) -> None:
        """Prepared. ``encode`` gives the vectors that are compared; ``notes`` are recorded."""
        self._encode = encode
        # What an export took, here or in a child, is no part of what the rounds take.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._children_before = _children_peak_mb()
        self.send({"ready": True, "versions": _versions(), "notes": notes})

    def wait(self) -> None:
        """Block until it is this variant's turn, then start the clocks."""
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
    """Of the largest child so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _own_peak_mb() -> float:
    """Since it was last reset. Not ru_maxrss: that cannot be reset, and survives an exec, so that
    a process begins with the peak of the one that started it."""
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
        # Ours for an extra that is not installed, and Python's own.
        names = {kind.__name__ for kind in type(error).__mro__}
        missing = bool(names & {"ImportError", "MissingExtraError", "NotAvailable"})
        rounds.send({"error": reason[:400], "missing": missing})
    answers.close()
    # Nothing is left to save, and thread pools of several libraries may take long to say goodbye.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
