"""`simcse verify-resume`"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["verify_resume_command"]


def verify_resume_command(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA...", help="As for `simcse train`.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="As for `simcse train`.")] = None,
    method: Annotated[str | None, typer.Option(help="As for `simcse train`.")] = None,
    preset: Annotated[str | None, typer.Option(help="As for `simcse train`.")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A run.toml, over the preset.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")
    ] = None,
    allow_call: Annotated[
        list[str] | None,
        typer.Option("--allow-call", metavar="MODULE", help="As for `simcse train`."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Of each of the two runs.")] = 6,
    kills: Annotated[int, typer.Option(help="Times that the second run is killed.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Prove that a run killed and resumed equals an uninterrupted one, to the bit.

    Trains a few steps twice, in one go and killed at random, and compares encoder, checkpoint
    (weights, optimizer, schedule, random numbers, state of the method) and log. Exit code 1 where
    they differ.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from simcse_kit.config import load_config, parse_setting

    named = [
        {table: {key: value}}
        for table, key, value in (
            ("data", "train", data or None),
            ("model", "name", model),
            ("method", "name", method),
        )
        if value is not None
    ]
    resolved = load_config(
        preset=preset, file=config, overrides=[*map(parse_setting, settings or []), *named]
    )
    from simcse_kit.training.verify_resume import verify_resume

    with TemporaryDirectory(prefix="simcse-verify-") as folder:
        found = verify_resume(
            resolved, Path(folder), steps=steps, kills=kills, allow_call=allow_call or ()
        )
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        places = ", ".join(f"after the checkpoint of step {step}" for step in found.killed_at)
        typer.echo(f"{found.steps} steps in one go, and killed {places}, and resumed:")
        for what in found.different:
            typer.echo(f"  {what}")
        if not found.different:
            typer.echo(f"  the same to the bit ({found.compared} files and logs)")
    if found.different:
        raise typer.Exit(1)
