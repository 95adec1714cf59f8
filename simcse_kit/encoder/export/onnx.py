"""ONNX: export from torch, and inference with ONNX Runtime."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_kit.encoder.export.base import INPUTS, Engine

__all__ = ["ONNX"]

_FILE = "model.onnx"
# The first opset with Gelu as one operator, which ONNX Runtime fuses with the bias.
_OPSET = 20


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


class _Onnx:
    extra = "onnx"
    files = (_FILE,)
    packages = ("onnxruntime", "onnx", "onnxscript", "torch", "transformers")
    has_int8 = False

    def require(self) -> None:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

    def write(
        self, graph: nn.Module, example: tuple[Tensor, Tensor], names: list[str], folder: Path
    ) -> None:
        import torch

        dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        with _quiet():
            torch.onnx.export(
                graph,
                example,
                folder / _FILE,
                input_names=list(INPUTS),
                output_names=names,
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
                dynamic_shapes=(dynamic, dynamic),
                external_data=False,
            )

    def open(self, folder: Path, *, threads: int) -> Engine:
        import onnxruntime

        del threads  # each call computes in the thread of its caller
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return _Engine(
            onnxruntime.InferenceSession(
                str(folder / _FILE), options, providers=["CPUExecutionProvider"]
            )
        )


class _Engine:
    def __init__(self, session: Any):
        self._session = session
        self._last = session.get_outputs()[-1].name

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        inputs = dict(zip(INPUTS, (input_ids, attention_mask), strict=True))
        result: NDArray[np.float32] = self._session.run([self._last], inputs)[0]
        return result


ONNX = _Onnx()
