"""OpenVINO: conversion from torch, int8 quantization with NNCF, and inference on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_kit.encoder.export.base import INPUTS, Engine, PaddedBatch, tensors
from simcse_kit.encoder.forked_processes import PREPARING

__all__ = ["OPENVINO"]

_XML, _BIN = "model.xml", "model.bin"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the tools' output and telemetry, and restore the program's logging afterwards.

    TRAP: both tools send usage reports over the network unless the variable CI is set.
    TRAP: both change the levels of the root logger and of its handlers.
    """
    root = logging.getLogger()
    level, handlers = root.level, {each: each.level for each in root.handlers}
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = list(handlers)
        for handler, own in handlers.items():
            handler.setLevel(own)
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


class _OpenVINO:
    extra = "openvino"
    files = (_XML, _BIN)
    packages = ("openvino", "nncf", "torch", "transformers")
    has_int8 = True

    def require(self) -> None:
        with _silent():
            import nncf
            import openvino  # noqa: F401

            nncf.set_log_level(40)

    def write(
        self, graph: nn.Module, example: tuple[Tensor, Tensor], names: list[str], folder: Path
    ) -> None:
        import openvino as ov

        with _silent():
            model = ov.convert_model(graph, example_input=tensors(example))  # type: ignore[arg-type]
        for port, name in zip(model.outputs, names, strict=True):
            port.get_tensor().set_names({name})
        ov.save_model(model, folder / _XML, compress_to_fp16=False)

    def quantize(self, fp32: Path, batches: Sequence[PaddedBatch], folder: Path) -> None:
        """Quantize statically: weights int8 per channel, activations by their ranges, with NNCF's
        SmoothQuant (arXiv 2211.10438)."""
        import nncf
        import openvino as ov

        with _silent():
            model = nncf.quantize(
                ov.Core().read_model(fp32 / _XML),
                nncf.Dataset([tensors(batch) for batch in batches]),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
            )
        ov.save_model(model, folder / _XML, compress_to_fp16=False)

    def open(self, folder: Path, *, threads: int) -> Engine:
        import openvino as ov

        # One stream per thread is faster than one stream whose threads wait for each other.
        settings: dict[str, Any] = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
        # Without it, OpenVINO runs float32 graphs in bfloat16 on CPUs that support it.
        settings |= {"INFERENCE_PRECISION_HINT": "f32"}
        return _Engine(lambda: ov.Core().compile_model(folder / _XML, "CPU", settings))


class _Engine:
    """A compiled graph, compiled again in a forked process, which has none of its threads.

    Args:
        compile: function that opens the graph.
    """

    def __init__(self, compile: Callable[[], Any]):
        self._compile = compile
        self._open()
        _engines.add(self)

    def _open(self) -> None:
        self._compiled = self._compile()
        self._last = len(self._compiled.outputs) - 1
        self._requests = threading.local()
        self._process = os.getpid()

    def keep(self) -> None:
        """Keep the compiled graph alive until the process ends."""
        for part in (self._compiled, getattr(self._requests, "request", None)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if os.getpid() != self._process:
            with PREPARING:
                if os.getpid() != self._process:
                    self._open()
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        request.infer(dict(zip(INPUTS, (input_ids, attention_mask), strict=True)))
        # Copy, because the next call writes to the same memory.
        result: NDArray[np.float32] = request.get_output_tensor(self._last).data.copy()
        return result


_engines: WeakSet[_Engine] = WeakSet()


def _in_child() -> None:
    # TRAP: freeing a graph compiled by the parent waits forever for threads that are not here.
    for engine in _engines:
        engine.keep()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

OPENVINO = _OpenVINO()
