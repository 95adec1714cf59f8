"""Commands `simcse data nli`, `qa`, `dedupe` and `split`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from simcse_kit.cli.options import Engine

if TYPE_CHECKING:
    from simcse_kit.data.prepare.output import Summary
    from simcse_kit.data.read_options import ReadOptions

__all__ = ["dedupe_command", "nli_command", "qa_command", "split_command"]

Output = Annotated[
    str, typer.Option(metavar="FILE", help="File to write: .csv, .tsv, .jsonl, .txt, or with .gz.")
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Text columns: names, or positions if no header."),
]
InputFormat = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Format if the suffix differs, such as tsv."),
]
OnBadRow = Annotated[
    str, typer.Option(metavar="error|skip", help="Stop at a bad row, or skip and count it.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def nli_command(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help=".csv, .tsv, .jsonl, .parquet; or .gz")
    ],
    output: Output,
    premise: Annotated[str | None, typer.Option(help="Column; a position without header.")] = None,
    hypothesis: Annotated[str | None, typer.Option(help="Column.")] = None,
    label: Annotated[str | None, typer.Option(help="Column.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="CLASS=SPELLING,...", help="Such as entailment=yes,contradiction=no."),
    ] = None,
    one_per_premise: Annotated[
        bool, typer.Option("--one-per-premise", help="Draw one entailment of each premise.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    format: InputFormat = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn premise, hypothesis, label into triplets: premise, entailment, contradiction."""
    from simcse_kit.data.prepare.nli import NliColumns, nli_triplets

    _show(
        nli_triplets(
            files,
            output,
            _options(None, format, on_bad_row),
            columns=NliColumns(premise, hypothesis, label, labels),
            one_per_premise=one_per_premise,
            seed=seed,
            overwrite=overwrite,
        ),
        as_json,
    )


def qa_command(
    file: Annotated[str, typer.Argument(help=".csv, .tsv, .jsonl or .parquet; or .gz")],
    output: Output,
    question: Annotated[str | None, typer.Option(help="Column; a position without header.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column.")] = None,
    all_answers: Annotated[
        bool, typer.Option("--all-answers", help="Write a pair for each answer in a list.")
    ] = False,
    format: InputFormat = None,
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
            _options(None, format, on_bad_row),
            question=question,
            answer=answer,
            all_answers=all_answers,
            overwrite=overwrite,
        ),
        as_json,
    )


def dedupe_command(
    file: Annotated[str, typer.Argument(help="Any file that `simcse train` reads.")],
    output: Output,
    level: Annotated[
        str,
        typer.Option(metavar="exact|normal|near", help="normal ignores case, punctuation, spaces."),
    ] = "normal",
    threshold: Annotated[
        float, typer.Option(help="For near: share of common 4-character runs, 0.5 to 1.")
    ] = 0.8,
    by: Annotated[
        str, typer.Option(metavar="row|anchor", help="Compare all texts of a row, or the first.")
    ] = "row",
    columns: Columns = None,
    format: InputFormat = None,
    on_bad_row: OnBadRow = "error",
    overwrite: Overwrite = False,
    engine: Engine = "local",
    as_json: AsJson = False,
) -> None:
    """Write FILE without duplicates, keeping the first row of each."""
    from simcse_kit.cluster.connection import parse_engine
    from simcse_kit.data.prepare.dedupe import DuplicateRules, remove_duplicates

    cluster = parse_engine(engine)
    options = _options(columns, format, on_bad_row)
    rules = DuplicateRules(cast("Any", level), threshold, cast("Any", by))
    if cluster is None:
        summary = remove_duplicates(file, output, options, rules, overwrite=overwrite)
    else:
        from simcse_kit.cluster.dedupe import dedupe_on_ray

        summary = dedupe_on_ray(file, output, options, rules, engine=cluster, overwrite=overwrite)
    _show(summary, as_json)


def split_command(
    file: Annotated[str, typer.Argument(help="Any file that `simcse train` reads.")],
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder for the parts.")],
    dev_test: Annotated[
        str, typer.Option(metavar="DEV,TEST", help="Shares such as 0.1,0.1, or rows: 1000,1000.")
    ] = "0.1,0.1",
    by: Annotated[
        str,
        typer.Option(metavar="anchor|texts", help="Text that keeps rows in one part."),
    ] = "anchor",
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    columns: Columns = None,
    format: InputFormat = None,
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
            _options(columns, format, on_bad_row),
            dev_test=dev_test,
            by=cast("Any", by),
            seed=seed,
            overwrite=overwrite,
        ),
        as_json,
    )


def _options(columns: str | None, format: str | None, on_bad_row: str) -> ReadOptions:
    from simcse_kit.data.read_options import ReadOptions

    return ReadOptions(
        columns=None if columns is None else columns.split(","),
        format=cast("Any", format),  # checked by ReadOptions
        on_bad_row=cast("Any", on_bad_row),
    )


def _show(summary: Summary, as_json: bool) -> None:
    typer.echo(json.dumps(summary.to_json()) if as_json else summary.text())
