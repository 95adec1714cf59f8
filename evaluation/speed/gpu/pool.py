"""Processes that each keep one system (a library in one precision) and measure it when asked.

The functions in ``variants/`` run here unchanged. Other than the processes of ``harness/``, these
live for all tasks, because imports and the start of CUDA take longer than a measurement; the clocks
stop when the device has finished; and a round can be profiled.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.worker import Finished


class NotMeasuredError(Exception):
    """A system reports an error, ended, or did not answer in time."""


class Turns:
    """The argument ``rounds`` of a function in ``variants/``, in its process."""

    def __init__(self, pipe: Connection, device: str):
        import torch

        self._pipe, self._torch, self._cuda = pipe, torch, device.startswith("cuda")
        self._encode: Callable[[list[str]], Any] | None = None
        self._profile: Any = None
        self._began = 0.0

    def ready(self, encode: Callable[[list[str]], Any] | None = None, **notes: Any) -> None:
        """Report readiness; ``encode`` gives vectors for a comparison."""
        self._encode = encode
        self._pipe.send({"notes": notes})

    def wait(self) -> None:
        """Answer requests until a round is to run, then start the clock."""
        while (request := self._pipe.recv())["do"] not in ("run", "profile", "stop"):
            if request["do"] == "vectors":
                assert self._encode is not None, "this system has no vectors"
                self._pipe.send({"vectors": self._encode(request["texts"])})
            else:  # free
                if self._cuda:
                    self._torch.cuda.empty_cache()
                self._pipe.send({})
        if request["do"] == "stop":
            raise Finished
        if self._cuda:
            self._torch.cuda.synchronize()
            self._torch.cuda.reset_peak_memory_stats()
        if request["do"] == "profile":
            from gpu.profiling import started

            self._profile = started(cuda=self._cuda)
        self._began = time.perf_counter()

    def done(self, **notes: Any) -> None:
        """Report the round once the device has finished."""
        if self._cuda:
            self._torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        answer: dict[str, Any] = {"seconds": seconds, "notes": notes}
        if self._profile is not None:
            from gpu.profiling import summary

            self._profile.stop()
            answer["profile"], self._profile = summary(self._profile), None
        if self._cuda:
            answer["peak_gb"] = round(self._torch.cuda.max_memory_allocated() / 1e9, 3)
        self._pipe.send(answer)


def _serve(pipe: Connection, log: str, device: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    while True:
        try:
            target, params, folder = pipe.recv()
        except EOFError:
            return
        answer: dict[str, Any] = {}
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
            module, _, function = target.partition(":")
            getattr(importlib.import_module(module), function)(params, Turns(pipe, device))
            raise RuntimeError("the function ended before its rounds were over")
        except Finished:
            pass
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            answer = {"error": reason[:300]}
        # Not above, where the exception keeps what the function held.
        _release(device)
        pipe.send(answer)


def _release(device: str) -> None:
    import gc

    import torch
    import transformers

    # A trainer's callback of an earlier task.
    callbacks = transformers.trainer.DEFAULT_CALLBACKS
    callbacks[:] = [one for one in callbacks if type(one).__name__ != "Turns"]
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


class Worker:
    """A process for one system.

    Args:
        name: name of the system.
        work: folder for its working directories and its log.
        device: device of all its measurements.
    """

    def __init__(self, name: str, work: Path, device: str):
        self.name, self._work, self._device = name, work, device
        self._process: Any = None
        self._pipe: Any = None

    def start(self, task: str, target: str, params: dict[str, Any]) -> None:
        """Begin to prepare a function, ``module:function``, without waiting for it."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            log = str(self._work / f"{self.name}.log")
            self._process = context.Process(
                target=_serve, args=(theirs, log, self._device), daemon=False
            )
            self._process.start()
            theirs.close()
        self._pipe.send((target, params, str(self._work / task / self.name)))

    def ask(self, seconds: float, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer to it, within ``seconds``."""
        with contextlib.suppress(OSError):  # the process ended; answer() reports it
            self._pipe.send({"do": do, **request})
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            NotMeasuredError: there is none, or it is an error. The process is ended, since its
                device may no longer work.
        """
        try:
            if not self._pipe.poll(max(0.1, seconds)):
                raise NotMeasuredError("it did not answer in time")
            answer: dict[str, Any] = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.end()
            raise NotMeasuredError(f"its process ended with code {code}") from None
        except NotMeasuredError:
            self.end()
            raise
        if "error" in answer:
            self.end()
            raise NotMeasuredError(answer["error"])
        return answer

    def close(self) -> None:
        """Let the process end once it is idle."""
        if self._pipe is not None:
            self._pipe.close()

    def end(self) -> None:
        """End the process, by force if it is busy."""
        if self._process is not None:
            self.close()
            self._process.join(3)
            self._process.kill()
            self._process.join(10)
            self._process = None
