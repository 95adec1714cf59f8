"""Command `simcse compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from simcse_kit.cli import results
from simcse_kit.cli.options import DeviceName
from simcse_kit.errors import ConfigError

__all__ = ["compare_command"]


def compare_command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Two or more; each is compared with the first. Seeds of one system: A,B,C.",
        ),
    ],
    data: results.Data = None,
    tasks: Annotated[
        str,
        typer.Option(help="sts (the seven), names such as STS12,STSB, or files of graded pairs."),
    ] = "sts",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the resampling.")] = 0,
    level: Annotated[float, typer.Option(help="Confidence level.")] = 0.95,
    flips: Annotated[int, typer.Option(help="Pairs to show at each end of the changes.")] = 5,
    device: DeviceName = "auto",
    json_file: results.JsonFile = None,
    report: results.ReportFolder = None,
    audit_training: results.AuditTraining = False,
    allow_unknown: results.AllowUnknown = False,
) -> None:
    """Test whether encoders differ: intervals, paired tests, and which pairs changed."""
    places = results.Places.checked(json_file, report, audit_training)
    systems = [[seed_model.strip() for seed_model in model.split(",")] for model in models]
    if report is not None and any(len(system) > 1 for system in systems):
        raise ConfigError("--report shows single models; omit it, or give one seed of each")
    from simcse_kit.evaluation.model_reports import compare_models
    from simcse_kit.evaluation.statistics.seeds import Systems
    from simcse_kit.evaluation.statistics.tables import render_comparison, render_systems

    found = compare_models(
        systems,
        tasks,
        data=data,
        exhibits=report is not None,
        allow_unknown=allow_unknown,
        device=device,
        resamples=resamples,
        seed=seed,
        level=level,
        flips=flips,
        progress=True,
    )
    assert found.comparison is not None
    if isinstance(found.comparison, Systems):
        table = render_systems(found.comparison)
    else:
        table = render_comparison(found.comparison)
    places.write(found.comparison.to_json(), table, found)
