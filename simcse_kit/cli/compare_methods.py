"""Command `simcse compare-methods`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from simcse_kit.cli import options

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
    steps: Annotated[int, typer.Option(help="Number of steps of each run.")] = 200,
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    model: Annotated[str, typer.Option(help="Encoder that all runs start from.")] = "mini",
    preset: Annotated[
        str | None, typer.Option(help="For all runs, except for its method; see `simcse presets`.")
    ] = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to train. [default: auto]"),
    ] = None,
    settings: options.Settings = None,
    allow_call: options.AllowCall = None,
    keep_encoders: Annotated[
        bool, typer.Option("--keep-encoders", help="Keep the encoder of each run.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Train only the runs that DIR does not contain yet.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Train several methods from one encoder on the same batches, and compare them."""
    config = options.load_run(
        preset,
        settings=settings,
        train=data,
        model=model,
        dev=dev,
        output=output,
        max_steps=steps,
        batch_size=batch_size,
        learning_rate=lr,
        device=device,
    )
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
