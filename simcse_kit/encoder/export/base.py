"""What a runtime for exported encoders offers, and the table of runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from simcse_kit.registry import Registry

__all__ = ["FORMATS", "INPUTS", "Batch", "Engine", "Format", "outputs", "tensors"]

# (input_ids, attention_mask), both (n, L) int64, padded on the right.
Batch: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

INPUTS = ("input_ids", "attention_mask")

# Each names an object that follows :class:`Format`.
FORMATS = Registry(
    "export format",
    {
        "onnx": "simcse_kit.encoder.export.onnx:ONNX",
        "openvino": "simcse_kit.encoder.export.openvino:OPENVINO",
    },
)


def outputs(normalize: bool) -> list[str]:
    """Names of the graph's outputs, each ``(n, dim)`` float32.

    The first follows the recipe and is what other programs take; the last is not normalised and is
    what :class:`Engine` gives. They are one where the recipe does not normalise.
    """
    return ["sentence_embedding", "unnormalized_embedding"] if normalize else ["sentence_embedding"]


class Engine(Protocol):
    """An opened graph. Several threads may call :meth:`run` at a time; each call uses one core."""

    def run(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Token ids and mask, ``(n, L)`` each, to vectors ``(n, dim)``, not normalised."""
        ...


class Format(Protocol):
    """How one runtime writes, quantises and opens a graph.

    Attributes:
        extra: the extra of simcse-kit that brings its packages.
        files: names of the files of a graph.
        packages: distributions that write it and so are recorded, the one that runs it first.
    """

    extra: str
    files: tuple[str, ...]
    packages: tuple[str, ...]

    def require(self) -> None:
        """Import what writing needs.

        Raises:
            ImportError: a package is missing.
        """
        ...

    def write(
        self, graph: nn.Module, example: tuple[Tensor, Tensor], names: list[str], folder: Path
    ) -> None:
        """Write the float32 graph, with dynamic batch and length, into ``folder``."""
        ...

    def quantize(self, fp32: Path, batches: Sequence[Batch], folder: Path) -> None:
        """Write an int8 form of the graph in the folder ``fp32`` into ``folder``."""
        ...

    def open(self, folder: Path, *, threads: int) -> Engine:
        """Open a graph for at most ``threads`` calls of :meth:`Engine.run` at a time.

        Raises:
            Exception: whatever the runtime raises on a file that it cannot use.
        """
        ...


def tensors(batch: Batch) -> dict[str, Any]:
    """A batch under the names of the graph's inputs."""
    return dict(zip(INPUTS, batch, strict=True))
