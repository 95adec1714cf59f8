"""Options of reading a file, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from simcse_kit.data.bad_rows import OnBadRow, RowGate
from simcse_kit.data.columns import are_positions, check_columns, check_label
from simcse_kit.data.files import FileFormat
from simcse_kit.data.lines import MAX_LINE_BYTES
from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

__all__ = ["DEFAULTS", "ReadOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options of reading a file.

    Args:
        columns: Text columns in the order anchor, positive, hard negatives: names, or positions
            from 0 (``("0", "1")``) in a .csv or .tsv file without a header line. None recognises
            the header.
        label: Column of the label, by name or position. Rows are then two texts and a number.
        documents: Number of following sentences in a row, for .txt files that hold documents: a
            sentence a line, and a blank line after each document. 0 for files without documents.
        format: Format of the file, if its suffix does not show it.
        header: Whether a .csv or .tsv file begins with the names of its columns. Without a header
            the columns are called 0, 1, ...; ``columns`` given as positions imply that.
        on_bad_row: ``error`` raises at the first bad row; ``skip`` skips and counts bad rows.
        skip_blank: Whether .jsonl files may have blank lines between rows.
        max_line_bytes: Longest line accepted, in bytes; in .json and .parquet, the longest text.

    Raises:
        ConfigError: A value is not allowed, or two of them contradict each other.

    Examples:
        >>> ReadOptions(columns=["premise", "hypothesis"]).columns
        ('premise', 'hypothesis')
        >>> ReadOptions(columns=["0", "1"]).header
        False
    """

    columns: Sequence[str] | None = None
    label: str | None = None
    documents: int = 0
    format: FileFormat | None = None
    header: bool = True
    on_bad_row: OnBadRow = "error"
    skip_blank: bool = False
    max_line_bytes: int = MAX_LINE_BYTES

    def __post_init__(self) -> None:
        columns = check_columns(self.columns)
        self._set("columns", columns)
        self._set("label", check_label(self.label, columns))
        self._set("header", self.header and not are_positions(columns))
        formats = list(get_args(FileFormat))
        if self.format is not None and self.format not in formats:
            raise ConfigError(
                f"format is {self.format!r}{closest(self.format, formats)}; allowed: "
                f"{', '.join(formats)}"
            )
        if self.max_line_bytes < 1:
            raise ConfigError(f"max_line_bytes is {self.max_line_bytes}; it must be at least 1")
        RowGate("", self.on_bad_row)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


DEFAULTS = ReadOptions()
"""The options of a file whose columns are recognised and whose rows are all good."""
