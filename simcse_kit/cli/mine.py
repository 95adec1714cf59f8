"""`simcse data mine`"""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from simcse_kit.utils.process import collection_paused

__all__ = ["mine_command"]


def mine_command(
    file: Annotated[
        str, typer.Argument(help="Pairs, or single texts; negatives of triplets are replaced.")
    ],
    output: Annotated[
        str, typer.Option(metavar="FILE", help="Triplets: .csv, .tsv, .jsonl, or with .gz.")
    ],
    model: Annotated[str, typer.Option(help="Embedded name, folder, or Hub name.")] = "mini",
    pool: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="More candidates, one a line; may be given again."),
    ] = None,
    negatives: Annotated[int, typer.Option(help="Most hard negatives of a row.")] = 1,
    ranks: Annotated[
        str, typer.Option(metavar="FIRST:LAST", help="Neighbours that are looked at.")
    ] = "1:50",
    factor: Annotated[
        float, typer.Option(help="Most of a negative's score, as a share of the positive's.")
    ] = 0.95,
    margin: Annotated[float, typer.Option(help="Least distance below the positive's score.")] = 0.0,
    min_score: Annotated[float, typer.Option(help="Least score of a hard negative.")] = -1.0,
    max_score: Annotated[float, typer.Option(help="Most score of a hard negative.")] = 1.0,
    pick: Annotated[
        str, typer.Option(metavar="hardest|random", help="Which of those left.")
    ] = "hardest",
    hard_positives: Annotated[
        bool,
        typer.Option("--hard-positives", help="Of an anchor keep the least similar positive."),
    ] = False,
    positive_score: Annotated[
        float, typer.Option(help="Of single texts' positives, which are neighbours: least score.")
    ] = 0.8,
    positive_rank: Annotated[
        int, typer.Option(help="And last rank; the farthest neighbour within both is taken.")
    ] = 5,
    search: Annotated[
        str, typer.Option(metavar="exact|faiss", help="faiss: approximate; an extra.")
    ] = "exact",
    seed: Annotated[int, typer.Option(help="Of random picks.")] = 0,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Text columns: names, or positions if no header."),
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(metavar="error|skip", help="Stop at a bad row, or skip and count it.")
    ] = "error",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Find hard negatives (and hard positives) for FILE with an encoder."""
    with collection_paused(keep=True):
        from simcse_kit.data.bad_rows import ReadReport
        from simcse_kit.data.lines import read_lines
        from simcse_kit.data.prepare.mine import mine, read_rows
        from simcse_kit.data.prepare.negative_selection import Mining, parse_ranks
        from simcse_kit.data.prepare.output import check_output
        from simcse_kit.metrics.search import require_faiss

    mining = Mining(
        negatives=negatives,
        ranks=parse_ranks(ranks),
        factor=factor,
        margin=margin,
        min_score=min_score,
        max_score=max_score,
        pick=cast("Any", pick),  # checked by Mining
        hard_positives=hard_positives,
        positive_score=positive_score,
        positive_rank=positive_rank,
        search=cast("Any", search),
        seed=seed,
    )
    # Whatever is wrong with files is said before a model is opened.
    check_output(output, overwrite=overwrite, columns=3)
    if mining.search == "faiss":
        require_faiss()
    report = ReadReport()
    skip = cast("Any", on_bad_row)
    rows = read_rows(
        file,
        columns=None if columns is None else columns.split(","),
        on_bad_row=skip,
        report=report,
    )
    more = [text for path in pool or () for text in read_lines(path, on_bad_row=skip)]
    with collection_paused(keep=True):
        from simcse_kit.encoder.encoder import SentenceEncoder

        encoder = SentenceEncoder.load(model)
    summary = mine(
        encoder, rows, output, mining, candidates=more, overwrite=overwrite, progress=True
    )
    summary.take(report)
    typer.echo(json.dumps(summary.to_json()) if as_json else summary.text())
