"""`simcse eval`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from simcse_kit.atomic import write_whole
from simcse_kit.errors import ConfigError, DataError

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
        typer.Option(help="sts (the seven), names such as STS12,STSB, or files of graded pairs."),
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
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Scores as JSON; - for stdout.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(metavar="DIR", help="An HTML page with tables and plots.")
    ] = None,
) -> None:
    """Score an encoder on STS tasks, with alignment and uniformity."""
    from simcse_kit.evaluation.evaluate import DEFAULT_GEOMETRY, evaluate, load_tasks
    from simcse_kit.evaluation.statistics.bootstrap import LEVEL, check_settings
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
    loaded = load_tasks(tasks, data)
    if geometry_on != DEFAULT_GEOMETRY:
        load_tasks([geometry_on], data)
    from simcse_kit.evaluation.opening import open_encoder

    reports = []
    for name, wanted in ((before, before_pooling), (model, pooling)):
        if name is not None:
            encoder = open_encoder(name, pooling=wanted)
            reports.append(
                evaluate(
                    encoder,
                    loaded,
                    data=data,
                    geometry_on=geometry_on,
                    progress=True,
                    name=name,
                    resamples=resamples,
                )
            )
    document = json.dumps(reports[-1].to_json(), indent=2) + "\n"
    if json_file == "-":
        typer.echo(document, nl=False)
    else:
        typer.echo("\n\n".join(each.table() for each in reports))
    if scores is not None:
        write_whole(scores, document, remedy="give --json another file")
    if report is not None:
        from simcse_kit.evaluation.report.page import write_report

        page = write_report(reports, Path(report), title="Sentence encoder", history=history)
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
