"""`simcse data`: nli, qa, dedupe, split"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from simcse_kit.data.prepare.summary import Summary

__all__ = ["dedupe_command", "nli_command", "qa_command", "split_command"]

Output = Annotated[
    str, typer.Option(metavar="FILE", help="To write: .csv, .tsv, .jsonl, .txt, or with .gz.")
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Text columns: names, or positions if no header."),
]
Format = Annotated[
    str | None, typer.Option(metavar="NAME", help="What the input is, whatever its suffix: tsv.")
]
OnBadRow = Annotated[
    str, typer.Option(metavar="error|skip", help="Stop at a bad row, or skip and count it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="The summary as JSON.")]


def nli_command(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help=".csv, .tsv, .jsonl, .parquet; or .gz")
    ],
    output: Output,
    premise: Annotated[str | None, typer.Option(help="Column; a position if no header.")] = None,
    hypothesis: Annotated[str | None, typer.Option(help="Column.")] = None,
    label: Annotated[str | None, typer.Option(help="Column.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="CLASS=SPELLING,...", help="Such as entailment=yes,contradiction=no."),
    ] = None,
    one_per_premise: Annotated[
        bool, typer.Option("--one-per-premise", help="Draw one of a premise's entailments.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    format: Format = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn premise, hypothesis, label into triplets: premise, entailment, contradiction."""
    from simcse_kit.data.prepare.nli import nli_triplets

    _show(
        nli_triplets(
            files,
            output,
            premise=premise,
            hypothesis=hypothesis,
            label=label,
            labels=labels,
            one_per_premise=one_per_premise,
            seed=seed,
            format=format,
            on_bad_row=cast("Any", on_bad_row),  # checked where it is used
            overwrite=overwrite,
        ),
        as_json,
    )


def qa_command(
    file: Annotated[str, typer.Argument(help=".csv, .tsv, .jsonl or .parquet; or .gz")],
    output: Output,
    question: Annotated[str | None, typer.Option(help="Column; a position if no header.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column.")] = None,
    all_answers: Annotated[
        bool, typer.Option("--all-answers", help="A pair for each answer of a list.")
    ] = False,
    format: Format = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn questions and answers into pairs."""
    from simcse_kit.data.prepare.qa import qa_pairs

    _show(
        qa_pairs(
            file,
            output,
            question=question,
            answer=answer,
            all_answers=all_answers,
            format=format,
            on_bad_row=cast("Any", on_bad_row),
            overwrite=overwrite,
        ),
        as_json,
    )


def dedupe_command(
    file: Annotated[str, typer.Argument(help="Any file that `simcse train` reads.")],
    output: Output,
    level: Annotated[
        str,
        typer.Option(
            metavar="exact|normal|near", help="normal: case, punctuation, spaces do not count."
        ),
    ] = "normal",
    threshold: Annotated[
        float, typer.Option(help="Of near: shared 4-character pieces over all, 0.5 to 1.")
    ] = 0.8,
    by: Annotated[
        str, typer.Option(metavar="row|anchor", help="All texts must be alike, or the first.")
    ] = "row",
    columns: Columns = None,
    format: Format = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write FILE without its duplicates; of each the first row stays."""
    from simcse_kit.data.prepare.dedupe import dedupe

    _show(
        dedupe(
            file,
            output,
            level=cast("Any", level),
            threshold=threshold,
            by=cast("Any", by),
            columns=None if columns is None else columns.split(","),
            format=format,
            on_bad_row=cast("Any", on_bad_row),
            overwrite=overwrite,
        ),
        as_json,
    )


def split_command(
    file: Annotated[str, typer.Argument(help="Any file that `simcse train` reads.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder for the parts.")],
    dev_test: Annotated[
        str, typer.Option(metavar="DEV,TEST", help="Shares such as 0.1,0.1, or rows: 1000,1000.")
    ] = "0.1,0.1",
    by: Annotated[
        str,
        typer.Option(metavar="anchor|texts", help="Rows that share it stay in one part."),
    ] = "anchor",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    columns: Columns = None,
    format: Format = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Split FILE into train, dev and test parts that share no anchor."""
    from simcse_kit.data.prepare.split import split

    _show(
        split(
            file,
            output,
            dev_test=dev_test,
            by=cast("Any", by),
            seed=seed,
            columns=None if columns is None else columns.split(","),
            format=format,
            on_bad_row=cast("Any", on_bad_row),
            overwrite=overwrite,
        ),
        as_json,
    )


def _show(summary: Summary, as_json: bool) -> None:
    typer.echo(json.dumps(summary.to_json()) if as_json else summary.text())
