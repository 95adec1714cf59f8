"""`simcse eval`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_kit.atomic import write_whole
from simcse_kit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from simcse_kit.evaluation.embed import Encoder
    from simcse_kit.evaluation.results import Report

__all__ = ["eval_command"]


def eval_command(
    model: Annotated[
        str, typer.Argument(help="Embedded name, folder, Hub name, st:NAME, openai:NAME.")
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="STS data in the SentEval layout; the Hub without it."),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="sts (the seven), names such as STS12,STSB, files of graded pairs; MR,TREC,... or "
            "transfer; retrieval:DIR, paraphrase:FILE, clustering:FILE."
        ),
    ] = "sts",
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own recipe.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Evaluate this one first, to compare.")
    ] = None,
    before_pooling: Annotated[str | None, typer.Option(help="Pooling of --before.")] = None,
    geometry_on: Annotated[
        str, typer.Option(help="Where alignment and uniformity are taken: STSB, STSB-full, ...")
    ] = "STSB",
    resamples: Annotated[
        int, typer.Option(help="Of the bootstrap for the 95 % intervals; 0 for none.")
    ] = 10_000,
    post: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Try these as well: standardize,whitening(k=256),abtt(k=3)."
        ),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text that --post is fitted on.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Scores as JSON; - for stdout.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(metavar="DIR", help="An HTML page with tables and plots.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Text that the model mostly does not know.")
    ] = False,
) -> None:
    """Score an encoder on STS, transfer and other tasks, with alignment and uniformity."""
    from simcse_kit.evaluation.evaluate import (
        DEFAULT_GEOMETRY,
        evaluate,
        load_all_tasks,
        load_tasks,
    )
    from simcse_kit.evaluation.postprocess import parse_postprocesses, read_fit_texts, tried
    from simcse_kit.evaluation.results import SCHEMA
    from simcse_kit.evaluation.statistics.bootstrap import LEVEL, check_settings
    from simcse_kit.evaluation.table import render_side_by_side
    from simcse_kit.training.folder import METRICS

    # Whatever is wrong with files and data is said before a model is opened.
    scores = None if json_file in (None, "-") else Path(str(json_file))
    if scores is not None and not scores.parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no folder {scores.parent}")
    if scores is not None and scores.is_dir():
        raise ConfigError(f"--json {json_file} is a folder; give the name of a file")
    if report is not None and Path(report).exists() and not Path(report).is_dir():
        raise ConfigError(f"--report {report} is a file; give the name of a folder")
    history = None if report is None else _history(Path(model) / METRICS)
    if resamples:
        check_settings(resamples, LEVEL)
    loaded = load_all_tasks(tasks, data)
    if geometry_on != DEFAULT_GEOMETRY:
        load_tasks([geometry_on], data)
    if (post is None) != (fit is None):
        raise ConfigError("--post and --fit go together: maps, and the text they are fitted on")
    calls = {} if post is None else parse_postprocesses(post)
    texts = [] if fit is None else read_fit_texts(fit)
    from simcse_kit.evaluation.opening import open_encoder

    def score(encoder: Encoder, name: str) -> Report:
        return evaluate(
            encoder,
            loaded,
            data=data,
            geometry_on=geometry_on,
            progress=True,
            name=name,
            resamples=resamples,
            exhibits=report is not None,
            allow_unknown=allow_unknown,
        )

    reports = []
    if before is not None:
        reports.append(score(open_encoder(before, pooling=before_pooling), before))
    encoder = open_encoder(model, pooling=pooling)
    reports.append(score(encoder, model))
    main = reports[-1]
    if calls:
        reports += [score(each, f"{model} + {name}") for name, each in tried(encoder, calls, texts)]
    found = main.to_json()
    if calls:
        found = {"schema": SCHEMA, "reports": [each.to_json() for each in reports]}
    document = json.dumps(found, indent=2) + "\n"
    if json_file == "-":
        typer.echo(document, nl=False)
    elif calls:
        typer.echo(f"{main.table()}\n\nFitted on {fit}, {len(texts):,} distinct texts:")
        typer.echo(render_side_by_side(reports))
    else:
        typer.echo("\n\n".join(each.table() for each in reports))
    if scores is not None:
        write_whole(scores, document, remedy="give --json another file")
    if report is not None:
        from simcse_kit.evaluation.leaks.recorded import recorded_leaks
        from simcse_kit.evaluation.report.page import write_report

        pairs = {name: task for name, task in loaded.items() if isinstance(task, list)}
        leaks = [] if before is None else [recorded_leaks(before, pairs)]
        # A post-processed version is of the same training.
        leaks += (1 + len(calls)) * [recorded_leaks(model, pairs)]
        page = write_report(
            reports, Path(report), title="Sentence encoder", history=history, leaks=leaks
        )
        typer.echo(f"report: {page}", err=json_file == "-")


def _history(metrics: Path) -> list[dict[str, Any]] | None:
    """The training curves of a model that this kit trained."""
    if not metrics.is_file():
        return None
    rows = []
    for number, line in enumerate(metrics.read_text("utf-8", "replace").split("\n"), start=1):
        if line:
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise DataError(
                    "is not JSON; mend or remove the line", file=metrics, line=number
                ) from None
    return rows
