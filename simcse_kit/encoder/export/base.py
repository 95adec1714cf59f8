"""Interface of the runtimes for exported encoders, and their registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_kit.registry import Registry

__all__ = ["FORMATS", "INPUTS", "Engine", "ExportFormat", "PaddedBatch", "outputs", "tensors"]

# (input_ids, attention_mask), both (n, L) int64, padded on the right.
PaddedBatch: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

INPUTS = ("input_ids", "attention_mask")

# Each entry names an object that implements :class:`Format`.
FORMATS = Registry(
    "export format",
    {
        "onnx": "simcse_kit.encoder.export.onnx:ONNX",
        "openvino": "simcse_kit.encoder.export.openvino:OPENVINO",
    },
)


def outputs(normalize: bool) -> list[str]:
    """Return the names of the graph's outputs, each ``(n, dim)`` float32.

    The first output follows the recipe, for other programs. The last is not normalized, and
    :class:`Engine` returns it. Without normalization in the recipe there is only one output.
    """
    return ["sentence_embedding", "unnormalized_embedding"] if normalize else ["sentence_embedding"]


class Engine(Protocol):
    """An opened graph. Several threads may call :meth:`run` at once; each call uses one core."""

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Compute vectors ``(n, dim)``, not normalized, from ids and mask, ``(n, L)`` each."""
        ...


class ExportFormat(Protocol):
    """Writing, quantizing and opening a graph with one runtime.

    Attributes:
        extra: the extra of simcse-kit that installs the packages.
        files: names of the files of a graph.
        packages: distributions whose versions are recorded; the first one runs the graph.
        has_int8: whether :meth:`quantize` exists.
    """

    extra: str
    files: tuple[str, ...]
    packages: tuple[str, ...]
    has_int8: bool

    def require(self) -> None:
        """Import the packages that writing needs.

        Raises:
            ImportError: a package is missing.
        """
        ...

    def write(
        self, graph: nn.Module, example: tuple[Tensor, Tensor], names: list[str], folder: Path
    ) -> None:
        """Write the float32 graph, with dynamic batch size and length, into ``folder``."""
        ...

    def quantize(self, fp32: Path, batches: Sequence[PaddedBatch], folder: Path) -> None:
        """Write an int8 form of the graph in ``fp32`` into ``folder``."""
        ...

    def open(self, folder: Path, *, threads: int) -> Engine:
        """Open a graph for at most ``threads`` simultaneous calls of :meth:`Engine.run`.

        Raises:
            Exception: of any kind, if the runtime cannot use the file.
        """
        ...


def tensors(batch: PaddedBatch) -> dict[str, Any]:
    """Return a batch as a dict, by the names of the graph's inputs."""
    return dict(zip(INPUTS, batch, strict=True))
