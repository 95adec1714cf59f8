"""Training rows of a file, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import read_texts

__all__ = ["training_rows"]


def training_rows(
    path: str | Path, report: ReadReport | None = None, **options: Any
) -> list[tuple[str, ...]]:
    """All training rows of a file; the good ones are counted in ``report`` too."""
    report = ReadReport() if report is None else report
    rows = list(read_texts(path, ReadOptions(**options), report=report)[1])
    report.rows += len(rows)
    return rows
