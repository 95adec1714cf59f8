"""The report pages: ``report.html`` with ``report.json``, and ``training.html``.

Every page is one file that needs no network and runs no script: style and figures are inside it,
and a content security policy in its head lets the browser load nothing else. Names of models, tasks
and subsets are untrusted and reach the page only through the escaping template engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from simcse_kit.atomic import write_whole
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.report import curves, sections, tables
from simcse_kit.evaluation.report.further import further_tables
from simcse_kit.evaluation.report.intervals import interval_table
from simcse_kit.evaluation.report.numbers import counted
from simcse_kit.evaluation.results import SCHEMA, Report

__all__ = ["write_report", "write_training_report"]

History = Sequence[Mapping[str, float]]


def write_report(
    reports: Sequence[Report],
    folder: Path,
    *,
    title: str = "Sentence embedding report",
    history: History | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` into ``folder``, which is made if need be.

    The JSON file is ``{"schema": 1, "reports": [Report.to_json(), ...]}``. The same input gives the
    same bytes.

    Args:
        reports: at least one. Two are read as before and after, and the page shows differences.
        folder: where the two files go; files of these names are replaced, each in one move.
        title: heading of the page.
        history: rows of a training run (``step`` and any of ``loss``, ``ln_batch``,
            ``learning_rate``, ``sentences_per_second``, ``dev_spearman``, ``dev_alignment``,
            ``dev_uniformity``, ``dev_loss``), drawn as curves and as a path in the plane.

    Returns:
        the path of ``report.html``.

    Raises:
        ConfigError: the folder cannot be made or written to.
        DataError: a history row has no step.
        ValueError: ``reports`` is empty.
    """
    if not reports:
        raise ValueError("write_report needs at least one report")
    rows = list(history or ())
    html = _render(
        "report.html",
        title=title,
        models=list(zip(tables.roles(reports), reports, strict=True)),
        headline=tables.headline(reports),
        scores=tables.score_table(reports),
        intervals=interval_table(reports),
        details=tables.detail_tables(reports),
        further=further_tables(reports),
        cosines=sections.cosine_section(reports),
        plane=sections.plane_section(reports, rows),
        geometry=tables.geometry_table(reports),
        curves=curves.training_curves(rows),
        environment=tables.environment_table(reports),
    )
    document = {"schema": SCHEMA, "reports": [report.to_json() for report in reports]}
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    _write(folder, {"report.json": text, "report.html": html})
    return folder / "report.html"


def write_training_report(
    history: History, folder: Path, *, title: str, summary: Mapping[str, str]
) -> Path:
    """Write ``training.html`` into ``folder``, which is made if need be.

    Args:
        history: rows of a training run, as for :func:`write_report`.
        folder: where the file goes; a file of this name is replaced in one move.
        title: heading of the page.
        summary: facts about the run, shown in their order.

    Returns:
        the path of ``training.html``.

    Raises:
        ConfigError: the folder cannot be made or written to.
        DataError: a history row has no step.
    """
    panels = curves.training_curves(history)
    path = curves.hypersphere_path(history)
    plane = sections.path_panel(path) if len(path) > 1 else None
    best = curves.best_dev(history)
    html = _render(
        "training.html",
        title=title,
        summary={str(name): str(value) for name, value in summary.items()},
        curves=panels,
        plane=plane,
        best=best and (curves.readable(best[1]), counted(int(best[0]))),
    )
    _write(folder, {"training.html": html})
    return folder / "training.html"


def _asset(name: str) -> str:
    return files("simcse_kit.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(style=Markup(_asset("style.css")), **values)


def _write(folder: Path, documents: Mapping[str, str]) -> None:
    remedy = "choose another output folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written to {str(folder)!r}: {error.strerror or error}; {remedy}"
        ) from error
    for name, text in documents.items():
        # A file name in a model path need not be valid UTF-8; its odd bytes are shown escaped.
        content = text.encode("utf-8", "backslashreplace")
        write_whole(folder / name, content, remedy=remedy)
