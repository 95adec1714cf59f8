"""Command `simcse train`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from simcse_kit.cli import options

__all__ = ["TrainCommand", "train_command"]

_DATA = "DATA..."


class TrainCommand(TyperCommand):
    """Command whose usage line shows ``DATA...``, without the brackets and dots that typer adds."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return [_DATA if _DATA in piece else piece for piece in super().collect_usage_pieces(ctx)]


def train_command(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=_DATA,
            help="txt (one sentence per line), csv, tsv, jsonl, json or parquet; .gz, .bz2, .xz "
            "too; files or folders, addresses such as s3://..., hf:owner/name:split#column.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    method: options.Method = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Model that --method distill learns from; repeat it for several."
        ),
    ] = None,
    preset: options.Preset = None,
    config: options.ConfigFile = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the encoder. [default: simcse-output]"),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="STS folder or graded pairs that choose the checkpoint."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Number of steps.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Evaluations without a better score after which training stops."),
    ] = None,
    batch_size: options.BatchSize = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Such as 4GB: larger batches are computed in chunks that fit."
        ),
    ] = None,
    lr: options.LearningRate = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHAIN",
            help="Such as 'delete(0.1)|reorder(2)'; repeat the option for one chain per view.",
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Maximum number of tokens per sentence.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Allow only deterministic operators.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to train. [default: auto]"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="auto|fp32|bf16", help="auto: bf16 autocast on GPUs that have it, else fp32."
        ),
    ] = None,
    tf32: Annotated[
        bool, typer.Option("--tf32", help="Multiply fp32 matrices in TF32; for CUDA GPUs.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Names or positions of the columns to read."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the score of two texts, by name or position.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Lowest and highest score possible, such as 0,5."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="With model.lora, also save a merged encoder in DIR/merged."),
    ] = False,
    on_bad_row: Annotated[
        str | None, typer.Option(metavar="error|skip", help="Stop at a bad row, or count it.")
    ] = None,
    allow_unknown: Annotated[
        bool,
        typer.Option("--allow-unknown", help="Train even if the model lacks most of the tokens."),
    ] = False,
    on_collapse: Annotated[
        str | None,
        typer.Option(metavar="warn|stop|rollback", help="What to do when the embeddings collapse."),
    ] = None,
    settings: options.Settings = None,
    allow_call: options.AllowCall = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest complete checkpoint in DIR.")
    ] = False,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Resume with other settings or text, and log them."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in DIR.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Train an encoder on text files and keep the best checkpoint."""
    resolved = options.load_run(
        preset,
        config,
        settings,
        allow_call,
        choose_preset=True,
        train=data or None,
        model=model,
        method=method,
        teachers=teacher or None,
        output=output,
        dev=dev,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
        memory_budget=memory_budget,
        learning_rate=lr,
        augment=augment[0] if augment and len(augment) == 1 else augment or None,
        max_length=max_length,
        seed=seed,
        deterministic=deterministic or None,
        device=device,
        precision=precision,
        tf32=tf32 or None,
        columns=None if columns is None else columns.split(","),
        label=label,
        scale=scale,
        merge=merge or None,
        on_bad_row=on_bad_row,
        allow_unknown=allow_unknown or None,
        on_collapse=on_collapse,
    )
    from simcse_kit.training.api import train
    from simcse_kit.utils.distributed import launched

    try:
        result = train(
            resolved,
            resume=resume,
            overwrite=overwrite,
            allow_changed=allow_changed,
            allow_call=allow_call or (),
        )
    except KeyboardInterrupt:
        message = "interrupted; the same command with --resume (without --overwrite) continues"
        typer.echo(f"simcse: {message} from the newest checkpoint", err=True)
        raise typer.Exit(1) from None
    if launched()[0]:  # only the first process prints the result
        return
    typer.echo(json.dumps(result.to_json()) if as_json else "\n".join(result.summary()))
