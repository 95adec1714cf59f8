"""What a command did with the rows it read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from simcse_kit.data.bad_rows import ReadReport

__all__ = ["Summary"]


@dataclass
class Summary:
    """Counts and figures, for people and as JSON.

    Args:
        output: the file or folder that was written.
        rows: rows in it.
        read: good rows of the input.
        left_out: what was not written -> how many.
        bad_rows: why rows of the input were skipped -> how many.
        figures: anything else that was counted or measured.
    """

    output: str
    rows: int = 0
    read: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    bad_rows: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count what is not written."""
        self.left_out[what] = self.left_out.get(what, 0) + count

    def take(self, report: ReadReport) -> None:
        """Take over what reading skipped."""
        for reason, count in report.skipped.items():
            self.bad_rows[reason] = self.bad_rows.get(reason, 0) + count

    def to_json(self) -> dict[str, Any]:
        """The summary for ``json.dumps``."""
        return asdict(self)

    def text(self) -> str:
        """The summary in a few lines."""
        lines = [f"{self.rows:,} rows of {self.read:,}: {self.output}"]
        for title, counts in (("left out", self.left_out), ("bad rows", self.bad_rows)):
            if counts:
                each = (f"{count:,} {what}" for what, count in counts.items())
                lines.append(f"{title}: {', '.join(each)}")
        lines += [f"{name}: {_shown(value)}" for name, value in self.figures.items()]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
