"""`simcse compare`"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import write_whole
from simcse_kit.utils.output_paths import check_result_places

__all__ = ["compare_command"]


def compare_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Two or more; the others are held against the first. Seeds of one system: A,B,C.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="STS data in the SentEval layout; the Hub without it."),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(help="sts (the seven), names such as STS12,STSB, or files of graded pairs."),
    ] = "sts",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of its draws.")] = 0,
    level: Annotated[float, typer.Option(help="Of intervals and verdicts.")] = 0.95,
    flips: Annotated[int, typer.Option(help="Pairs to show at each end.")] = 5,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="All as JSON; - for stdout.")
    ] = None,
    report: Annotated[
        str | None, typer.Option(metavar="DIR", help="A page with tables, verdicts and plots.")
    ] = None,
    audit_training: Annotated[
        bool, typer.Option("--audit-training", help="For --report, as of `simcse eval`.")
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Text that the model mostly does not know.")
    ] = False,
) -> None:
    """Tell whether encoders differ: intervals, paired tests, and where the difference lies."""
    from simcse_kit.evaluation.evaluate import DEFAULT_GEOMETRY, evaluate, load_tasks
    from simcse_kit.evaluation.models import check_model, open_encoder
    from simcse_kit.evaluation.results import REPORT_FILES
    from simcse_kit.evaluation.statistics.bootstrap import check_settings
    from simcse_kit.evaluation.statistics.seeds import check_seeds, compare_systems

    # Whatever is wrong with the arguments is said before a model is opened.
    check_settings(resamples, level)
    scores, page = check_result_places(json_file, report, REPORT_FILES)
    if audit_training and page is None:
        raise ConfigError("--audit-training fills a table of the report; give --report as well")
    systems = [[seed_model.strip() for seed_model in model.split(",")] for model in models]
    if len(systems) < 2:
        raise ConfigError("compare takes two models or more; `simcse eval` scores one")
    over_seeds = any(len(system) > 1 for system in systems)
    if over_seeds:
        check_seeds([len(system) for system in systems])
        if report is not None:
            raise ConfigError(
                "--report shows single models; leave it out, or give one seed of each"
            )
    loaded = load_tasks(tasks, data)
    if not over_seeds:
        check_settings(resamples, level, (len(systems) - 1) * len(loaded))
    folders = [check_model(name) for system in systems for name in system]
    from simcse_kit.evaluation.statistics.comparison import compare_reports
    from simcse_kit.evaluation.statistics.tables import render_comparison, render_systems

    reports = [
        [
            evaluate(
                open_encoder(name),
                loaded,
                data=data,
                geometry_on=None if report is None else DEFAULT_GEOMETRY,
                progress=True,
                name=name,
                exhibits=report is not None,
                allow_unknown=allow_unknown,
            )
            for name in system
        ]
        for system in systems
    ]
    comparison = None
    if over_seeds:
        found = compare_systems(reports, level=level)
        table, document = render_systems(found), found.to_json()
    else:
        comparison = compare_reports(
            [report for (report,) in reports],
            loaded,
            resamples=resamples,
            seed=seed,
            level=level,
            flips=flips,
            progress=True,
        )
        table, document = render_comparison(comparison), comparison.to_json()
    text = json.dumps(document, indent=2) + "\n"
    try:
        # Files first: standard output may be closed or full.
        if scores is not None:
            write_whole(scores, text, remedy="give --json another file")
        if page is not None:
            from simcse_kit.evaluation.contamination.recorded import recorded_leaks
            from simcse_kit.evaluation.report.page import write_report

            write_report(
                [each for (each,) in reports],
                page,
                title="Sentence encoders compared",
                comparison=comparison,
                leaks=[
                    recorded_leaks(each, loaded) if each and audit_training else None
                    for each in folders
                ],
            )
    finally:
        typer.echo(text.rstrip("\n") if json_file == "-" else table)
    if page is not None:
        typer.echo(f"report: {page / REPORT_FILES[0]}", err=json_file == "-")
