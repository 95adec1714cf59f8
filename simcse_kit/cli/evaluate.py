"""Command `simcse eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from simcse_kit.cli import results
from simcse_kit.cli.options import DeviceName, PromptNames
from simcse_kit.errors import ConfigError
from simcse_kit.utils.printable import one_line

__all__ = ["eval_command"]


def eval_command(
    model: Annotated[
        str, typer.Argument(help="Bundled name, folder, Hub name, st:NAME, or openai:NAME.")
    ],
    data: results.Data = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="sts (the seven), names such as STS12,STSB, files of graded pairs; MR,TREC,... or "
            "transfer; retrieval:DIR, paraphrase:FILE, clustering:FILE."
        ),
    ] = "sts",
    pooling: Annotated[str | None, typer.Option(help="Replace the model's own pooling.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Evaluate this model first, to compare.")
    ] = None,
    before_pooling: Annotated[str | None, typer.Option(help="Pooling of --before.")] = None,
    geometry_on: Annotated[
        str, typer.Option(help="Data for alignment and uniformity: STSB, STSB-full, ...")
    ] = "STSB",
    resamples: Annotated[
        int, typer.Option(help="Bootstrap resamples for the 95 % intervals; 0 for no intervals.")
    ] = 10_000,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Lowest and highest score possible in files of graded pairs, such as 0,5.",
        ),
    ] = None,
    post: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Maps to try as well: standardize,whitening(k=256),abtt(k=3)."
        ),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text to fit the maps of --post on.")
    ] = None,
    prompt: results.Prompts = None,
    prompt_name: PromptNames = None,
    dimensions: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Score the first dimensions only: 64, or several: 32,64,128."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="exact|faiss", help="Search engine of retrieval tasks.")
    ] = "exact",
    device: DeviceName = "auto",
    json_file: results.JsonFile = None,
    report: results.ReportFolder = None,
    audit_training: results.AuditTraining = False,
    allow_unknown: results.AllowUnknown = False,
) -> None:
    """Score an encoder on STS, transfer and other tasks, with alignment and uniformity."""
    places = results.Places.checked(json_file, report, audit_training)
    if (post is None) != (fit is None):
        raise ConfigError("--post and --fit go together: maps, and the text to fit them on")
    if post is not None and (prompt or prompt_name or dimensions is not None):
        raise ConfigError(
            "--post does not go with --prompt, --prompt-name or --dimensions; leave one of them out"
        )
    sizes = [] if dimensions is None else _sizes(dimensions)
    if len(sizes) > 1 and before is not None:
        raise ConfigError("several --dimensions are compared with each other; leave out --before")
    from simcse_kit.evaluation.model_reports import evaluate_models
    from simcse_kit.evaluation.postprocess import read_trials
    from simcse_kit.evaluation.results import SCHEMA, side_by_side

    trials = None if post is None or fit is None else read_trials(post, fit)
    models = [(model, pooling)] if before is None else [(before, before_pooling), (model, pooling)]
    found = evaluate_models(
        models,
        tasks,
        data=data,
        trials=trials,
        dimensions=sizes,
        engine=engine,
        prompt=prompt,
        prompt_name=prompt_name,
        geometry_on=geometry_on,
        scale=scale,
        resamples=resamples,
        exhibits=report is not None,
        allow_unknown=allow_unknown,
        device=device,
        progress=True,
    )
    main = found.reports[len(models) - 1]
    if len(sizes) > 1:
        document = {"schema": SCHEMA, "reports": [each.to_json() for each in found.reports]}
        places.write(document, side_by_side(found.reports), found)
    elif trials is None:
        shown = "\n\n".join(each.table() for each in found.reports)
        places.write(main.to_json(), shown, found)
    else:
        fitted = f"Fitted on {one_line(str(fit))}, {len(trials.texts):,} distinct texts:"
        shown = f"{main.table()}\n\n{fitted}\n{side_by_side(found.reports)}"
        document = {"schema": SCHEMA, "reports": [each.to_json() for each in found.reports]}
        places.write(document, shown, found)


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"--dimensions {text}: give numbers of dimensions, such as 32,64,128")
    return list(dict.fromkeys(map(int, parts)))
