"""Command `simcse data check-leak`."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from simcse_kit.cli import results
from simcse_kit.cli.options import DeviceName, Engine
from simcse_kit.utils.output_paths import check_distinct

__all__ = ["check_leak_command"]


def check_leak_command(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Training files, or the name of one set of graded pairs, such as STSB-dev.",
        ),
    ],
    against: Annotated[
        str, typer.Option(metavar="SETS", help="sts, names as for `simcse eval`, or files.")
    ] = "sts",
    data: results.Data = None,
    threshold: Annotated[
        float,
        typer.Option(
            help="Smallest share of word pairs of a near match; 0 to find only equal texts."
        ),
    ] = 0.8,
    matches: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write all matches: .tsv, .csv, .jsonl.")
    ] = None,
    remove: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the training file without matches.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Score this model on the clean pairs as well; repeatable."),
    ] = None,
    device: DeviceName = "auto",
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Text columns: names, or positions if no header."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Format of the files, in place of their suffix: tsv."),
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(metavar="error|skip", help="Stop at a bad row, or skip and count it.")
    ] = "error",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    engine: Engine = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search training files for the sentences of evaluation sets."""
    from simcse_kit.cluster.connection import parse_engine
    from simcse_kit.data.read_options import ReadOptions
    from simcse_kit.encoder.device import known_device
    from simcse_kit.errors import ConfigError
    from simcse_kit.evaluation.contamination.check import LeakFiles, check_pairs, search_files
    from simcse_kit.evaluation.contamination.scores import render_clean_scores, score_models
    from simcse_kit.evaluation.models import check_model
    from simcse_kit.evaluation.tasks.load import load_tasks
    from simcse_kit.evaluation.tasks.sts import TASKS
    from simcse_kit.utils.json import plain

    check_distinct({"--matches": matches, "--remove": remove})
    known_device(device)
    cluster = parse_engine(engine)
    for name in model or ():
        check_model(name)
    sets = load_tasks(against, data)
    least = threshold or None
    if len(train) == 1 and train[0].upper() in map(str.upper, TASKS):
        if matches or remove:
            raise ConfigError("--matches and --remove are for training files, not for graded pairs")
        if cluster is not None:
            raise ConfigError(
                f"--engine {engine} is for training files; search graded pairs with --engine local"
            )
        ((name, pairs),) = load_tasks(train, data).items()
        report = check_pairs(name, pairs, sets, threshold=least)
    else:
        options = ReadOptions(
            columns=None if columns is None else columns.split(","),
            format=cast("Any", format),
            on_bad_row=cast("Any", on_bad_row),
        )
        written = LeakFiles(matches, remove, overwrite)
        if cluster is None:
            report = search_files(train, sets, options, written, threshold=least)
        else:
            from simcse_kit.cluster.leaks import check_leaks_on_ray

            report = check_leaks_on_ray(
                train, sets, options, written, threshold=least, engine=cluster
            )
    document = report.to_json()
    scores = score_models(model or (), sets, report.found, device=device)
    if scores:
        document["scores"] = {
            name: {task: vars(score) for task, score in tasks.items()}
            for name, tasks in scores.items()
        }
    if as_json:
        typer.echo(json.dumps(plain(document)))
        return
    typer.echo(report.table())
    for name, tasks in scores.items():
        typer.echo(f"\n{render_clean_scores(name, tasks)}")
