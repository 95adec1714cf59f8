"""Policy for bad rows: raise an error with file and line, or skip and count by reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from simcse_kit.errors import ConfigError, DataError

__all__ = ["OnBadRow", "Problem", "ReadReport", "RowGate", "shorten"]

OnBadRow = Literal["error", "skip"]


def shorten(text: str, limit: int = 120) -> str:
    """Quote ``text`` as a one-line literal of about ``limit`` characters, for messages."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a row is bad.

    Args:
        reason: Short fixed phrase under which skipped rows are counted.
        message: Description of the problem in this row, and its remedy.
    """

    reason: str
    message: str


@dataclass
class ReadReport:
    """Counts of good and skipped rows, filled while a file is read.

    Args:
        rows: Number of good rows.
        skipped: Number of skipped rows by reason.
        first_skipped: Place (``file:line``) of the first skipped row by reason.
        file_rows: Number of good rows of each file, if they were counted.
    """

    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_skipped: dict[str, str] = field(default_factory=dict)
    file_rows: list[int] = field(default_factory=list)

    @property
    def total_skipped(self) -> int:
        """Number of skipped rows over all reasons."""
        return sum(self.skipped.values())

    def skip(self, reason: str, place: str, count: int = 1) -> None:
        """Count ``count`` skipped rows, the first of which is at ``place`` (``file:line``)."""
        self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.first_skipped.setdefault(reason, place)

    def summary(self) -> str:
        """Return one line such as ``2 x blank line (first: a:3), 1 x not UTF-8 (first: a:9)``."""
        return ", ".join(
            f"{count} x {reason} (first: {self.first_skipped[reason]})"
            for reason, count in self.skipped.items()
        )


class RowGate:
    """Handling of the bad and blank rows of one file.

    Args:
        file: Name of the file in messages.
        on_bad_row: ``error`` raises at the first bad row; ``skip`` counts bad rows in ``report``.
        report: Counter of skipped rows.
        skip_blank: Whether blank lines are allowed everywhere and not only at the end.

    Raises:
        ConfigError: ``on_bad_row`` has another value.
    """

    def __init__(
        self,
        file: str | Path,
        on_bad_row: OnBadRow = "error",
        report: ReadReport | None = None,
        *,
        skip_blank: bool = False,
    ):
        if on_bad_row not in ("error", "skip"):
            raise ConfigError(f"on_bad_row is {on_bad_row!r}; allowed: 'error', 'skip'")
        self.file = str(file)
        self.report = ReadReport() if report is None else report
        self.blanks = 0
        self._skip = on_bad_row == "skip"
        self._skip_blank = skip_blank
        self._first_blank = 0

    def reject(self, line: int, problem: Problem, count: int = 1) -> None:
        """Raise a DataError for the row that begins at ``line``, or count it as skipped."""
        if not self._skip:
            raise DataError(problem.message, file=self.file, line=line)
        self.report.skip(problem.reason, f"{self.file}:{line}", count)

    def blank(self, line: int) -> None:
        """Note a blank line, which is a bad row only if a row follows (see :meth:`settle`)."""
        self.blanks += 1
        if self.blanks == 1:
            self._first_blank = line

    def settle(self) -> None:
        """Reject the blank lines noted so far, because a row follows them."""
        count, self.blanks = self.blanks, 0
        if count and not self._skip_blank:
            message = (
                "blank line; delete it (blank lines may only end a file), or read the file as "
                "documents with data.documents = 1 or more"
            )
            self.reject(self._first_blank, Problem("blank line", message), count)

    def finish(self, lines: int) -> None:
        """Check the end of a file of ``lines`` lines.

        Raises:
            DataError: The file has no line, or only blank lines.
        """
        if lines == 0:
            raise DataError("the file is empty", file=self.file)
        if self.blanks == lines:
            raise DataError("the file is empty: it has only blank lines", file=self.file)
