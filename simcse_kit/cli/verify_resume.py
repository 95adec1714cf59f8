"""Command `simcse verify-resume`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from simcse_kit.cli import options

__all__ = ["verify_resume_command"]


def verify_resume_command(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA...", help="As for `simcse train`.")
    ] = None,
    model: options.Model = None,
    method: options.Method = None,
    preset: options.Preset = None,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    allow_call: options.AllowCall = None,
    steps: Annotated[int, typer.Option(help="Number of steps of each of the two runs.")] = 6,
    kills: Annotated[int, typer.Option(help="How often the second run is killed.")] = 2,
    as_json: options.AsJson = False,
) -> None:
    """Verify that a run which is killed and resumed equals an uninterrupted one, bit for bit.

    Trains a few steps twice, once without interruption and once killed at random times, and
    compares encoder, checkpoint (weights, optimizer, schedule, random numbers, state of the
    method) and log. Exit code 1 if they differ.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    resolved = options.load_run(
        preset,
        config,
        settings,
        allow_call,
        choose_preset=True,
        train=data or None,
        model=model,
        method=method,
    )
    from simcse_kit.training.verify_resume import verify_resume

    with TemporaryDirectory(prefix="simcse-verify-") as folder:
        found = verify_resume(
            resolved, Path(folder), steps=steps, kills=kills, allow_call=allow_call or ()
        )
    typer.echo(json.dumps(asdict(found)) if as_json else found.text())
    if found.different:
        raise typer.Exit(1)
