"""`simcse compare-methods`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

__all__ = ["compare_methods_command"]


def compare_methods_command(
    data: Annotated[
        list[str],
        typer.Argument(help="Training text, as for `simcse train`; files or folders."),
    ],
    methods: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="With options: simcse,moco(queue_size=512, lr=1e-4)"),
    ],
    dev: Annotated[
        str, typer.Option(metavar="PATH", help="STS folder or graded pairs to score on.")
    ],
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder of the study.")],
    steps: Annotated[int, typer.Option(help="Of every run.")] = 200,
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    model: Annotated[str, typer.Option(help="All start from this encoder.")] = "mini",
    preset: Annotated[
        str | None, typer.Option(help="For all of them, its method aside; see `simcse presets`.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For all: evaluation.every=50"),
    ] = None,
    allow_call: Annotated[
        list[str] | None,
        typer.Option("--allow-call", metavar="MODULE", help="As for `simcse train`."),
    ] = None,
    keep_encoders: Annotated[
        bool, typer.Option("--keep-encoders", help="Keep the encoder of every run.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Make only the runs that DIR does not hold yet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The rows as JSON.")] = False,
) -> None:
    """Train several methods from one encoder on the same batches, and compare them."""
    from simcse_kit.config import load_config, parse_setting

    table: dict[str, Any] = {
        "model": {"name": model},
        "data": {"train": data},
        "training": {"max_steps": steps, "output": output},
        "evaluation": {"dev": dev},
    }
    for key, value in (("batch_size", batch_size), ("learning_rate", lr)):
        if value is not None:
            table["training"][key] = value
    config = load_config(preset=preset, overrides=[*map(parse_setting, settings or []), table])
    from simcse_kit.training.study.study import compare_methods

    study = compare_methods(
        config,
        methods,
        seeds=seeds,
        keep_encoders=keep_encoders,
        resume=resume,
        allow_call=allow_call or (),
    )
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in study.rows]))
        return
    typer.echo(study.table())
    typer.echo(f"plot: {study.folder / 'study.svg'}", err=True)
