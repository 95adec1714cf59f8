"""Where the vectors of a job go. Imports nothing heavy, so that a wrong name is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["FORMAT_NAMES", "SHARD_ROWS", "Target"]

FORMAT_NAMES = ("npy", "safetensors", "parquet", "jsonl")
"""The kinds of files, which are their suffixes without the dot."""

SHARD_ROWS = 16_384
"""Rows of a shard by default: at most so many sentences are computed again after a kill."""


@dataclass(frozen=True)
class Target:
    """Where the vectors go.

    Attributes:
        path: one file, or a folder of shards.
        format: one of :data:`FORMAT_NAMES`.
        one_file: whether ``path`` is a file.
        shard_rows: most rows of a shard.
        part: which of how many parts of the job this is, from 1; parts share a folder.
    """

    path: Path
    format: str
    one_file: bool
    shard_rows: int = SHARD_ROWS
    part: tuple[int, int] = (1, 1)

    @classmethod
    def of(
        cls,
        output: str,
        *,
        format: str | None = None,
        shard_rows: int = SHARD_ROWS,
        part: tuple[int, int] = (1, 1),
    ) -> Target:
        """A target from its name: a file by its suffix, else a folder.

        Raises:
            ConfigError: name, format, rows or part are not allowed, or do not go together.
        """
        path, suffix = Path(output), Path(output).suffix.lower()
        known = ", ".join(f".{name}" for name in FORMAT_NAMES)
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
                f"--output {output}: the parts of --shards share a folder; give the name of one"
            )
        if suffix and not one_file and not output.endswith("/") and not path.is_dir():
            raise ConfigError(
                f"--output {output}: vectors are written as {known}, or into a folder, whose name "
                "then ends in /"
            )
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"--output {output}: there is no folder {path.parent}")
        if one_file == path.is_dir() and path.exists():
            what = "it is a folder; give a file name" if one_file else "it is a file"
            raise ConfigError(f"--output {output} cannot be written: {what}")
        return cls(path, name if one_file else format or "npy", one_file, shard_rows, part)

    @property
    def work(self) -> Path:
        """The folder of the shards."""
        return self.path.with_name(f"{self.path.name}.parts") if self.one_file else self.path
