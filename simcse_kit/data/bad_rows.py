"""What happens to bad rows: raise with the place, or skip and count by reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from simcse_kit.errors import ConfigError, DataError

__all__ = ["OnBadRow", "Problem", "ReadReport", "RowGate", "shorten"]

OnBadRow = Literal["error", "skip"]


def shorten(text: str, limit: int = 120) -> str:
    """``text`` as a quoted one-line literal of about ``limit`` characters, for messages."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is bad.

    Args:
        reason: a short fixed phrase; skipped rows are counted under it.
        message: what is wrong with this row and what to do.
    """

    reason: str
    message: str


@dataclass
class ReadReport:
    """What reading met; filled while reading.

    Args:
        rows: good rows.
        skipped: reason -> number of bad rows skipped for it.
        first_skipped: reason -> ``file:line`` of the first of them.
    """

    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_skipped: dict[str, str] = field(default_factory=dict)

    @property
    def total_skipped(self) -> int:
        """Number of bad rows skipped, all reasons together."""
        return sum(self.skipped.values())

    def skip(self, reason: str, place: str, count: int = 1) -> None:
        """Count ``count`` skipped rows, the first of them at ``place`` (``file:line``)."""
        self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.first_skipped.setdefault(reason, place)

    def summary(self) -> str:
        """One line such as ``2 x blank line (first: a.txt:3), 1 x not UTF-8 (first: a.txt:9)``."""
        return ", ".join(
            f"{count} x {reason} (first: {self.first_skipped[reason]})"
            for reason, count in self.skipped.items()
        )


class RowGate:
    """Decides over the bad and the blank rows of one file.

    Args:
        file: the file, as it is shown in messages.
        on_bad_row: ``error`` raises at the first bad row; ``skip`` counts them in ``report``.
        report: where skipped rows are counted; a private one by default.

    Raises:
        ConfigError: ``on_bad_row`` is neither.
    """

    def __init__(
        self, file: str | Path, on_bad_row: OnBadRow = "error", report: ReadReport | None = None
    ):
        if on_bad_row not in ("error", "skip"):
            raise ConfigError(f"on_bad_row is {on_bad_row!r}; allowed: 'error', 'skip'")
        self.file = str(file)
        self.report = ReadReport() if report is None else report
        self.blanks = 0
        self.rows = 0
        self._skip = on_bad_row == "skip"
        self._first_blank = 0

    def reject(self, line: int, problem: Problem, count: int = 1) -> None:
        """Raise a DataError for the row that begins at ``line``, or count it as skipped."""
        if not self._skip:
            raise DataError(problem.message, file=self.file, line=line)
        self.report.skip(problem.reason, f"{self.file}:{line}", count)

    def blank(self, line: int) -> None:
        """Note a blank line; it is a bad row only if another row follows (see :meth:`settle`)."""
        self.blanks += 1
        if self.blanks == 1:
            self._first_blank = line

    def settle(self) -> None:
        """A row follows: the blank lines noted before it were not at the end of the file."""
        if self.blanks:
            count, self.blanks = self.blanks, 0
            message = (
                "blank line; delete it (blank lines may only end a file), or read the file as "
                "documents with data.documents = 1 or more"
            )
            self.reject(self._first_blank, Problem("blank line", message), count)

    def finish(self, lines: int) -> None:
        """The file is over after ``lines`` lines.

        Raises:
            DataError: it had no line, or blank lines only.
        """
        if lines == 0:
            raise DataError("the file is empty", file=self.file)
        if self.blanks == lines:
            raise DataError("the file is empty: it has only blank lines", file=self.file)
