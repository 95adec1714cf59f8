"""Options and output shared by the commands that score models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.output_paths import check_result_places

if TYPE_CHECKING:
    from simcse_kit.evaluation.model_reports import ModelReports

__all__ = [
    "AllowUnknown",
    "AuditTraining",
    "Data",
    "JsonFile",
    "Places",
    "Prompts",
    "ReportFolder",
]

Data = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="STS data in the SentEval layout. [default: the Hub]"),
]
JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - for stdout.")
]
ReportFolder = Annotated[
    str | None, typer.Option(metavar="DIR", help="Write an HTML page with tables and plots.")
]
AuditTraining = Annotated[
    bool,
    typer.Option(
        "--audit-training",
        help="For --report: search the training files that the model's run.toml names for the "
        "test's sentences. It can name any file; use it for models that you trust.",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="Text in front of every sentence; twice: for queries (and other tasks), for documents "
        "of retrieval. [default: the model's own]",
    ),
]
AllowUnknown = Annotated[
    bool,
    typer.Option("--allow-unknown", help="Accept text that the model's vocabulary mostly lacks."),
]


@dataclass(frozen=True)
class Places:
    """Where the results of a command go besides standard output.

    Attributes:
        scores: file of ``--json``.
        page: folder of ``--report``.
        audit_training: whether ``--audit-training`` is given.
        json_to_stdout: whether JSON replaces the tables on standard output.
    """

    scores: Path | None
    page: Path | None
    audit_training: bool
    json_to_stdout: bool

    @classmethod
    def checked(cls, json_file: str | None, report: str | None, audit_training: bool) -> Places:
        """Check that results can be written, before any work is done.

        Raises:
            ConfigError: a place cannot be written, or ``--audit-training`` lacks ``--report``.
        """
        from simcse_kit.evaluation.results import REPORT_FILES

        scores, page = check_result_places(json_file, report, REPORT_FILES)
        if audit_training and page is None:
            raise ConfigError("--audit-training fills a table of the report; give --report as well")
        return cls(scores, page, audit_training, json_file == "-")

    def write(self, document: dict[str, Any], text: str, found: ModelReports) -> None:
        """Write the files, then print the text or the JSON document.

        Standard output may be closed or full, so the files are written first.
        """
        shown = json.dumps(document, indent=2)
        try:
            if self.scores is not None:
                write_atomic(self.scores, shown + "\n", remedy="give --json another file")
            if self.page is not None:
                found.write_page(self.page, audit_training=self.audit_training)
        finally:
            typer.echo(shown if self.json_to_stdout else text)
        if self.page is not None:
            typer.echo(f"report: {self.page / 'report.html'}", err=self.json_to_stdout)
