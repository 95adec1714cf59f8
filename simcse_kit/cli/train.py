"""`simcse train`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

__all__ = ["TrainCommand", "train_command"]

_DATA = "DATA..."


class TrainCommand(TyperCommand):
    """Shows ``DATA...`` in the usage line, where typer would add brackets and dots of its own."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        return [_DATA if _DATA in piece else piece for piece in super().collect_usage_pieces(ctx)]


def train_command(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=_DATA,
            help="txt (a sentence a line), csv, tsv, jsonl, json or parquet; .gz, .bz2, .xz too; "
            "files or folders.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Embedded name, folder, or Hub name. [default: mini]")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="See `simcse methods`. [default: simcse]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="See `simcse presets`.")] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A run.toml, over the preset.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the encoder. [simcse-output]")
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="STS folder or graded pairs that choose the checkpoint."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step.")] = None,
    memory_budget: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Such as 4GB: larger batches go in chunks that fit."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHAIN",
            help="Such as 'delete(0.1)|reorder(2)'; given again: one for each view.",
        ),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a sentence.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.")] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Only operators that give the same bytes again."),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Names or positions of the columns to read."),
    ] = None,
    on_bad_row: Annotated[
        str | None, typer.Option(metavar="error|skip", help="Stop at a bad row, or count it.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Text that the model mostly does not know.")
    ] = False,
    on_collapse: Annotated[
        str | None,
        typer.Option(
            metavar="warn|stop|rollback", help="Where the embeddings collapse; see the README."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting: method.temperature=0.1"),
    ] = None,
    allow_call: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-call",
            metavar="MODULE",
            help="Augmentations may call functions of it; a configuration file cannot say so.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest complete checkpoint in DIR.")
    ] = False,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Resume with other settings or text; says which."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in DIR.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Train an encoder on text files and keep the best checkpoint."""
    from simcse_kit.config import load_config, parse_setting

    flags: list[tuple[str, str, Any]] = [
        ("data", "train", data or None),
        ("model", "name", model),
        ("method", "name", method),
        ("training", "output", output),
        ("evaluation", "dev", dev),
        ("training", "epochs", epochs),
        ("training", "max_steps", max_steps),
        ("training", "batch_size", batch_size),
        ("training", "memory_budget", memory_budget),
        ("training", "learning_rate", lr),
        ("data", "augment", augment[0] if augment and len(augment) == 1 else augment or None),
        ("data", "max_length", max_length),
        ("training", "seed", seed),
        ("training", "deterministic", deterministic or None),
        ("data", "columns", None if columns is None else columns.split(",")),
        ("data", "on_bad_row", on_bad_row),
        ("data", "allow_unknown", allow_unknown or None),
        ("evaluation", "on_collapse", on_collapse),
    ]
    named = [{table: {key: value}} for table, key, value in flags if value is not None]
    resolved = load_config(
        preset=preset, file=config, overrides=[*map(parse_setting, settings or []), *named]
    )
    from simcse_kit.encoder.token_counts import percent
    from simcse_kit.training.run import train
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
        message = "interrupted; the same command with --resume (without --overwrite) goes on"
        typer.echo(f"simcse: {message} from the newest checkpoint", err=True)
        raise typer.Exit(1) from None
    if launched()[0]:  # the first process speaks for all
        return
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    typer.echo(
        f"{result.steps:,} steps in {result.seconds:.0f} s "
        f"({result.sentences_per_second:.0f} sentences/s)"
    )
    if result.best_score is not None:
        before = "undefined" if result.start_score is None else f"{result.start_score:.4g}"
        typer.echo(
            f"{result.score_name} {result.best_score:.4g} at step {result.best_step} "
            f"({before} before)"
        )
    if result.undefined is not None:
        typer.echo(f"{result.undefined}; the last state was kept")
    if result.collapse is not None:
        typer.echo(f"collapse: {result.collapse}")
    if result.truncated:
        typer.echo(f"{100 * result.truncated:.1f} % of the sentences were cut")
    if result.unknown:
        typer.echo(f"{percent(result.unknown)} of the tokens were unknown to the vocabulary")
    for reason, count in result.skipped.items():
        typer.echo(f"skipped {count} rows: {reason}")
    typer.echo(f"encoder: {result.output}")
    typer.echo(f"curves:  {result.output / 'training.html'}")
