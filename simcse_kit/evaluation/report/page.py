"""The report pages: ``report.html`` with ``report.md`` and ``report.json``, and ``training.html``.

Every page is one file that works without a network: it contains the style, the figures and the one
script (of the sentence map), and its content security policy lets the browser load nothing else and
run only that script. Names of models, tasks and subsets, and all sentences, are untrusted: they
reach the page only through escaping, each in an element of its own, so that right-to-left text does
not reorder its surroundings.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.contamination.check import LeakReport
from simcse_kit.evaluation.report import curves, panels, score_tables, svg
from simcse_kit.evaluation.report.dimensions import dimension_panel
from simcse_kit.evaluation.report.numbers import counted
from simcse_kit.evaluation.report.sections import History, report_sections, to_markdown
from simcse_kit.evaluation.results import SCHEMA, Report
from simcse_kit.evaluation.statistics.comparison import Comparison
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import render_html

__all__ = ["write_report", "write_training_report"]


def write_report(
    reports: Sequence[Report],
    folder: Path,
    *,
    title: str = "Sentence embedding report",
    history: History | None = None,
    comparison: Comparison | None = None,
    leaks: Sequence[LeakReport | None] = (),
) -> Path:
    """Write ``report.html``, ``report.md`` and ``report.json`` into a folder.

    For several numbers of dimensions of one encoder also ``dimensions.svg``, a picture of the
    scores.

    The JSON file is ``{"schema": 1, "reports": [Report.to_json(), ...]}``, with ``"comparison"``
    if there is one. The Markdown file has the texts and tables of the page. The same input gives
    the same bytes.

    Args:
        reports: At least one. Two are read as before and after, and the page shows differences.
        folder: The folder, created if it does not exist; existing files of these names are
            replaced atomically.
        title: Heading of the page.
        history: Rows of a training run (``step`` and any of ``loss``, ``ln_batch``,
            ``learning_rate``, ``sentences_per_second``, ``dev_spearman``, ``dev_alignment``,
            ``dev_uniformity``, ``dev_loss``), drawn as curves and as a path in the plane.
        comparison: A comparison of these models; its verdicts are shown below the scores.
        leaks: For each report, the test sentences in the training text of its model, if known.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: The folder cannot be created or written to.
        DataError: A row of the history has no step.
        ValueError: ``reports`` is empty.
    """
    if not reports:
        raise ValueError("write_report needs at least one report")
    sections = report_sections(reports, history=history or (), comparison=comparison, leaks=leaks)
    models = list(zip(score_tables.roles(reports), reports, strict=True))
    page = _render(
        "report.html",
        interactive=any(block.maps for section in sections for block in section.blocks),
        title=title,
        models=models,
        headline=score_tables.headline(reports),
        sections=sections,
        render_html=render_html,
    )
    names = "; ".join(f"{role}: {report.model}" for role, report in models)
    document = {"schema": SCHEMA, "reports": [report.to_json() for report in reports]}
    if comparison is not None:
        document["comparison"] = comparison.to_json()
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    marked = to_markdown(f"{title} ({names})", sections)
    documents = {"report.json": text, "report.md": marked, "report.html": page}
    sweep = dimension_panel(reports)
    if sweep is not None:
        documents["dimensions.svg"] = svg.standalone(sweep.figure, _asset("style.css"))
    _write(folder, documents)
    return folder / "report.html"


def write_training_report(
    history: History, folder: Path, *, title: str, summary: Mapping[str, str]
) -> Path:
    """Write ``training.html`` into a folder.

    Args:
        history: Rows of a training run, as for :func:`write_report`.
        folder: The folder, created if it does not exist; an existing file is replaced atomically.
        title: Heading of the page.
        summary: Facts about the run, shown in their order.

    Returns:
        The path of ``training.html``.

    Raises:
        ConfigError: The folder cannot be created or written to.
        DataError: A row of the history has no step.
    """
    path = curves.hypersphere_path(history)
    best = curves.best_dev(history)
    page = _render(
        "training.html",
        interactive=False,
        title=title,
        summary={str(name): str(value) for name, value in summary.items()},
        curves=curves.training_curves(history),
        plane=panels.path_panel(path) if len(path) > 1 else None,
        best=best and (curves.readable(best[1]), counted(int(best[0]))),
    )
    _write(folder, {"training.html": page})
    return folder / "training.html"


def _asset(name: str) -> str:
    return files("simcse_kit.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _render(template: str, *, interactive: bool, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    script = _asset("map.js") if interactive else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_asset("style.css")), script=Markup(script), digest=digest, **values
    )


def _visible(value: Any) -> Any:
    """Escape characters that could break a line or reorder text."""
    return one_line(value) if type(value) is str else value


def _write(folder: Path, documents: Mapping[str, str]) -> None:
    remedy = "choose another output folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written to {str(folder)!r}: {error.strerror or error}; {remedy}"
        ) from error
    for name, text in documents.items():
        # A file name in a model path may not be valid UTF-8; its invalid bytes are shown escaped.
        content = text.encode("utf-8", "backslashreplace")
        write_atomic(folder / name, content, remedy=remedy)
