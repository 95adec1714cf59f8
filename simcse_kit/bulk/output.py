"""The destination of the vectors of a job, checked without heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simcse_kit.errors import ConfigError

if TYPE_CHECKING:
    from simcse_kit.metrics.vector_precision import OutputPrecision

__all__ = ["FORMAT_NAMES", "SHARD_ROWS", "OutputSpec"]

FORMAT_NAMES = ("npy", "safetensors", "parquet", "jsonl")
"""Supported file formats, named by their suffix without the dot."""

SHARD_ROWS = 16_384
"""Default number of rows per shard, which is the most that a killed job computes again."""


@dataclass(frozen=True)
class OutputSpec:
    """Where and in which format the vectors of a job are written.

    Attributes:
        path: A file, or a folder of shards.
        format: One of :data:`FORMAT_NAMES`.
        one_file: Whether ``path`` is a file.
        shard_rows: Maximum number of rows per shard.
        part: Number of this part of the job, from 1, and number of parts; parts share a folder.
        precision: Number format of the vectors.
        ranges: File with the ranges of int8 and uint8 vectors; None to compute them.
    """

    path: Path
    format: str
    one_file: bool
    shard_rows: int = SHARD_ROWS
    part: tuple[int, int] = (1, 1)
    precision: OutputPrecision = "float32"
    ranges: Path | None = None

    @classmethod
    def of(
        cls,
        output: str,
        *,
        format: str | None = None,
        shard_rows: int = SHARD_ROWS,
        part: tuple[int, int] = (1, 1),
    ) -> OutputSpec:
        """Make a specification from a path: a file if its suffix is a format, else a folder.

        Raises:
            ConfigError: Path, format, rows or part are not allowed, or do not fit together.
        """
        path, suffix = Path(output), Path(output).suffix.lower()
        if format is not None and format not in FORMAT_NAMES:
            raise ConfigError(f"--format {format} is unknown; known: {', '.join(FORMAT_NAMES)}")
        if shard_rows < 1:
            raise ConfigError(f"--shard-rows {shard_rows}: it must be 1 or more")
        name = suffix.removeprefix(".")
        one_file = name in FORMAT_NAMES and not output.endswith("/")
        if one_file and format not in (None, name):
            raise ConfigError(f"--output {output} is a {suffix} file, but --format is {format}")
        if one_file and part[1] > 1:
            raise ConfigError(
                f"--output {output}: the parts of --shards share a folder; give the name of a "
                "folder"
            )
        if suffix and not one_file and not output.endswith("/") and not path.is_dir():
            known = ", ".join(f".{name}" for name in FORMAT_NAMES)
            raise ConfigError(
                f"--output {output}: vectors are written as {known}, or into a folder; end the "
                "name of a folder with /"
            )
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"--output {output}: the folder {path.parent} does not exist")
        if one_file == path.is_dir() and path.exists():
            what = "it is a folder; give a file name" if one_file else "it is a file"
            raise ConfigError(f"--output {output} cannot be written: {what}")
        return cls(path, name if one_file else format or "npy", one_file, shard_rows, part)

    def in_precision(self, name: str, ranges: str | None = None) -> OutputSpec:
        """Return the same destination for vectors in another number format.

        Args:
            name: An :data:`~simcse_kit.metrics.vector_precision.OutputPrecision`.
            ranges: File with the ranges of int8 and uint8 vectors.

        Raises:
            ConfigError: The name is unknown, or ranges are given for another format.
        """
        from simcse_kit.metrics.vector_precision import check_output_precision, needs_ranges

        precision = check_output_precision(name)
        if ranges is not None and not needs_ranges(precision):
            raise ConfigError(
                f"--ranges {ranges} are for the output precisions int8 and uint8, not {precision}; "
                "leave them out, or give --output-precision int8"
            )
        return replace(self, precision=precision, ranges=None if ranges is None else Path(ranges))

    @property
    def ranges_file(self) -> Path:
        """File next to a single output file, with the ranges of its int8 vectors."""
        return self.path.with_suffix(".ranges.npy")

    @property
    def folder(self) -> Path:
        """Folder of the shards."""
        return self.path.with_name(f"{self.path.name}.parts") if self.one_file else self.path
