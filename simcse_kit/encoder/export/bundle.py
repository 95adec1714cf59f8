"""Folders of exported encoders: ``engine.json``, its checks, and opening the graph."""

from __future__ import annotations

import json
import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from simcse_kit.encoder.export.base import FORMATS, Engine, ExportFormat, PaddedBatch
from simcse_kit.encoder.folder.recipe import ENGINE_FILE
from simcse_kit.encoder.folder.safe_io import read_object
from simcse_kit.errors import ConfigError, MissingExtraError, ModelError

__all__ = [
    "Check",
    "EngineFacts",
    "ExportedBackbone",
    "cosines",
    "installed",
    "int8_instructions",
    "open_engine",
    "read_facts",
    "write_facts",
]

logger = logging.getLogger(__name__)

SCHEMA = 1
# A graph whose vector has a lower cosine to the vector at export is damaged. CPUs that round int8
# products differently stay well above it.
SAME = 0.9
_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm")


class Check(BaseModel):
    """The token ids of one sentence and its vector at the time of the export."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    input_ids: list[int]
    vector: list[float]

    def batch(self) -> PaddedBatch:
        """Return the sentence as a batch of one row."""
        ids = np.array([self.input_ids], dtype=np.int64)
        return ids, np.ones_like(ids)


class EngineFacts(BaseModel):
    """The content of ``engine.json``.

    Attributes:
        schema_version: version of this file's layout.
        format: a name in :data:`.base.FORMATS`.
        precision: precision of the matrix products.
        dim: dimensions of the vectors.
        positions: largest number of tokens in a sentence; None if the model has no limit.
        vocabulary: number of token embeddings.
        files: size of each file of the graph, in bytes.
        instructions: int8 instructions of the CPU of the export.
        versions: versions of the packages that wrote the graph.
        source: name of the exported model.
        check: a sentence and its vector, compared when the folder is opened.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    format: str
    precision: Literal["fp32", "int8"]
    dim: int
    positions: int | None
    vocabulary: int
    files: dict[str, int]
    instructions: list[str] | None
    versions: dict[str, str]
    source: str
    check: Check


class ExportedBackbone(nn.Module):
    """Placeholder for the transformer, which refuses operations that need weights.

    Args:
        folder: the exported folder.
        facts: the content of ``engine.json``.
    """

    def __init__(self, folder: Path, facts: EngineFacts):
        super().__init__()
        self.dim = facts.dim
        self.positions = facts.positions
        self.summary = f"{facts.format} {facts.precision}"
        self._folder, self._source = folder, facts.source

    def refuse(self) -> NoReturn:
        """Refuse an operation that needs the weights.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{self._folder} is exported and has no torch weights: it can encode, but cannot be "
            f"trained, changed or saved; use the model it was made from: {self._source}"
        )

    @property
    def config(self) -> NoReturn:
        """Refuse, see :meth:`refuse`."""
        self.refuse()

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, see :meth:`refuse`."""
        self.refuse()


def int8_instructions() -> list[str] | None:
    """Return the names of this CPU's int8 dot-product instructions; None if unknown."""
    # Older versions of torch have no such function.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return None
    found = capabilities()
    return [name for name in _INT8 if found.get(name)]


def installed(format: ExportFormat) -> dict[str, str]:
    """Return the installed versions of the packages of a format."""
    versions = {"simcse-kit": "unknown"}
    for package in ("simcse-kit", *format.packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def write_facts(folder: Path, facts: EngineFacts) -> None:
    """Write ``engine.json``."""
    text = json.dumps(facts.model_dump(), indent=2)
    (folder / ENGINE_FILE).write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> EngineFacts:
    """Read ``engine.json`` and check the sizes of the graph's files.

    Raises:
        ModelError: the file is damaged or of a later version, or a file of the graph is missing
            or truncated.
    """
    path = folder / ENGINE_FILE
    content = read_object(path)
    schema = content.get("schema_version")
    if isinstance(schema, int) and schema > SCHEMA:
        raise ModelError(
            f"{path} has schema_version {schema}; this version of simcse_kit reads {SCHEMA}; "
            "update it, or export the model again"
        )
    try:
        facts = EngineFacts.model_validate(content)
        format = FORMATS.resolve(facts.format)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: {where}: {first['msg']}; export the model again") from None
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from None
    for name in format.files:
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size is None or size != facts.files.get(name):
            state = "is missing" if size is None else f"has {size:,} bytes"
            raise ModelError(
                f"{folder / name} {state}, and {facts.files.get(name, 0):,} bytes were exported; "
                "copy the whole folder again, or export the model again"
            )
    return facts


def open_engine(folder: Path, facts: EngineFacts) -> Engine:
    """Open the graph for the threads of torch, and compare one sentence with its vector.

    Raises:
        MissingExtraError: the runtime is not installed.
        ModelError: the runtime cannot read the graph, or the vector differs from the recorded one.
    """
    format: ExportFormat = FORMATS.resolve(facts.format)
    runtime = format.packages[0]
    try:
        engine = format.open(folder, threads=torch.get_num_threads())
        ids, mask = facts.check.batch()
        vectors = engine.run(ids, mask)
    except ImportError as error:
        raise MissingExtraError(f"{folder}, exported to {facts.format},", format.extra) from error
    # Runtimes raise exceptions of many kinds on a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        here = installed(format).get(runtime, "unknown")
        made = facts.versions.get(runtime, "unknown")
        raise ModelError(
            f"{folder} cannot be run by {runtime} {here} (it was made with {made}): {reason}; "
            "export the model again"
        ) from error
    expected = np.array([facts.check.vector], dtype=np.float32)
    alike = cosines(vectors, expected)[0] if vectors.shape == expected.shape else float("nan")
    if not alike >= SAME:
        raise ModelError(
            f"{folder} gives another vector than at its export (cosine {alike:.3f}); its files are "
            "damaged or from different exports; export the model again"
        )
    _warn_of_cpu(folder, facts)
    return engine


def _warn_of_cpu(folder: Path, facts: EngineFacts) -> None:
    here = int8_instructions()
    if facts.precision == "int8" and facts.instructions and here == []:
        logger.warning(
            "%s is int8 and was exported on a CPU with %s, which this CPU lacks: it runs slower, "
            "and overflowing sums can lower its score; export the fp32 form for this CPU",
            folder,
            ", ".join(facts.instructions),
        )


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines ``(n,)`` of the rows of ``a`` and ``b``, both ``(n, d)``."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result: NDArray[np.float64] = (left * right).sum(axis=1) / np.maximum(lengths, 1e-30)
    return result
