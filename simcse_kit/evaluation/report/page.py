"""The report pages: ``report.html`` with ``report.md`` and ``report.json``, and ``training.html``.

Every page is one file that needs no network: style, figures and the one script (of the map of
sentences) are inside it, and a content security policy in its head lets the browser load nothing
else and run nothing but that script. Names of models, tasks and subsets, and all sentences, are
untrusted and reach the page only through the escaping template engine; each stands in an element of
its own, so that text from right to left does not move what is around it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.contamination.check import LeakReport
from simcse_kit.evaluation.report import curves, data, detail_sections, sections, tables, verdicts
from simcse_kit.evaluation.report.intervals import interval_table
from simcse_kit.evaluation.report.markdown import markdown
from simcse_kit.evaluation.report.numbers import counted
from simcse_kit.evaluation.report.tasks import beyond_tables
from simcse_kit.evaluation.results import SCHEMA, Report
from simcse_kit.evaluation.statistics.comparison import Comparison
from simcse_kit.utils.files import write_whole
from simcse_kit.utils.printable import one_line

__all__ = ["write_report", "write_training_report"]

History = Sequence[Mapping[str, float]]

_PROTOCOL = (
    "Spearman x100 between cosines and human scores, over all pairs of a task, average ranks for "
    "ties, no regressor; the average is the plain mean of the seven standard tasks."
)


def write_report(
    reports: Sequence[Report],
    folder: Path,
    *,
    title: str = "Sentence embedding report",
    history: History | None = None,
    comparison: Comparison | None = None,
    leaks: Sequence[LeakReport | None] = (),
) -> Path:
    """Write ``report.html``, ``.md`` and ``.json`` into ``folder``, which is made if need be.

    The JSON file is ``{"schema": 1, "reports": [Report.to_json(), ...]}``, with ``"comparison"``
    where there is one. The Markdown file has the tables of the page. The same input gives the same
    bytes.

    Args:
        reports: at least one. Two are read as before and after, and the page shows differences.
        folder: where the files go; files of these names are replaced, each in one move.
        title: heading of the page.
        history: rows of a training run (``step`` and any of ``loss``, ``ln_batch``,
            ``learning_rate``, ``sentences_per_second``, ``dev_spearman``, ``dev_alignment``,
            ``dev_uniformity``, ``dev_loss``), drawn as curves and as a path in the plane.
        comparison: of these models, whose verdicts then stand below the scores.
        leaks: for each report, what the training text of its model holds of the tasks, if known.

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
    scores, intervals = tables.score_table(reports), interval_table(reports)
    geometry, environment = tables.geometry_table(reports), tables.environment_table(reports)
    weights = data.fingerprint_row(reports)
    if weights is not None:
        environment = replace(environment, rows=(*environment.rows, weights))
    beyond_sts, details = beyond_tables(reports), tables.detail_tables(reports)
    judged = [] if comparison is None else verdicts.verdict_tables(comparison)
    kinds = [] if comparison is None else verdicts.slice_tables(comparison)
    neighbours, misses = (
        detail_sections.neighbour_tables(reports),
        detail_sections.miss_tables(reports),
    )
    audit = data.audit_table(reports)
    leaked = data.leak_table(reports, leaks, tables.task_names(reports))
    models = list(zip(tables.roles(reports), reports, strict=True))
    html = _render(
        "report.html",
        title=title,
        models=models,
        headline=tables.headline(reports),
        scores=scores,
        intervals=intervals,
        verdicts=judged,
        kinds=kinds,
        details=details,
        beyond_sts=beyond_sts,
        cosines=sections.cosine_section(reports),
        plane=sections.plane_section(reports, rows),
        spectrum=sections.spectrum_section(reports),
        geometry=geometry,
        maps=detail_sections.drawings(reports),
        neighbours=neighbours,
        misses=misses,
        curves=curves.training_curves(rows),
        audit=audit,
        leaked=leaked,
        environment=environment,
    )
    names = "; ".join(f"{role}: {report.model}" for role, report in models)
    document = {"schema": SCHEMA, "reports": [report.to_json() for report in reports]}
    if comparison is not None:
        document["comparison"] = comparison.to_json()
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    marked = markdown(
        f"{title} ({names})",
        [
            ("Scores", _PROTOCOL, [("", scores)]),
            ("How sure the scores are", "", [("", intervals)] if intervals else []),
            ("Whether the models differ", "", judged),
            ("By kind of pair", "", kinds),
            ("Other tasks", "", beyond_sts),
            ("Shape of the embedding space", "", [("", geometry)] if geometry else []),
            ("Nearest neighbours", "", neighbours),
            ("Largest errors", "", misses),
            ("Every subset", "", details),
            ("Data", "", [("", each) for each in (audit, leaked) if each]),
            ("Environment", "", [("", environment)]),
        ],
    )
    _write(folder, {"report.json": text, "report.md": marked, "report.html": html})
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
        finalize=_shown,
    )
    script = _asset("map.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_asset("style.css")), script=Markup(script), digest=digest, **values
    )


def _shown(value: Any) -> Any:
    """Text of ours or of others on one line, with what could turn its order escaped."""
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
        # A file name in a model path need not be valid UTF-8; its odd bytes are shown escaped.
        content = text.encode("utf-8", "backslashreplace")
        write_whole(folder / name, content, remedy=remedy)
