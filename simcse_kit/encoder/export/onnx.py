"""ONNX: export from torch, int8 with ranges taken at run time, and running in ONNX Runtime."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_kit.encoder.export.base import INPUTS, Batch, Engine, tensors

__all__ = ["ONNX"]

_FILE = "model.onnx"
# The first with Gelu as one operator, which the runtime fuses with its bias.
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

    def quantize(self, fp32: Path, batches: Sequence[Batch], folder: Path) -> None:
        """Smoothed by the calibration batches; weights i8 per channel; activations u8 by the range
        that each has at run time."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        from simcse_kit.encoder.export.smoothing import smooth

        smoothed = folder / "smoothed.onnx"
        with _quiet():
            smooth(fp32 / _FILE, smoothed, [tensors(batch) for batch in batches])
            quantize_dynamic(
                smoothed,
                folder / _FILE,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["MatMul", "Gemm"],
            )
        smoothed.unlink()

    def open(self, folder: Path, *, threads: int) -> Engine:
        import onnxruntime

        del threads  # the callers' own: every call computes in the thread that makes it
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
