"""Command `simcse data mine`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from simcse_kit.cli.options import DeviceName, Engine, PromptNames
from simcse_kit.utils.process import collection_paused

if TYPE_CHECKING:
    from simcse_kit.data.prepare.text_vectors import UnitEncoder

__all__ = ["mine_command"]


def mine_command(
    file: Annotated[
        str, typer.Argument(help="Pairs or single texts; hard negatives of triplets are replaced.")
    ],
    output: Annotated[
        str, typer.Option(metavar="FILE", help="File to write: .csv, .tsv, .jsonl, or with .gz.")
    ],
    model: Annotated[str, typer.Option(help="Bundled name, folder, or Hub name.")] = "small",
    pool: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Further candidates, one per line; repeatable."),
    ] = None,
    negatives: Annotated[int, typer.Option(help="Largest number of hard negatives in a row.")] = 1,
    ranks: Annotated[
        str, typer.Option(metavar="FIRST:LAST", help="Ranks of the candidates.")
    ] = "1:50",
    factor: Annotated[
        float, typer.Option(help="Highest score, as a share of the positive's score.")
    ] = 0.95,
    margin: Annotated[float, typer.Option(help="Least difference to the positive's score.")] = 0.0,
    min_score: Annotated[float, typer.Option(help="Lowest score of a hard negative.")] = -1.0,
    max_score: Annotated[float, typer.Option(help="Highest score of a hard negative.")] = 1.0,
    pick: Annotated[
        str, typer.Option(metavar="hardest|random", help="Which of the remaining candidates.")
    ] = "hardest",
    hard_positives: Annotated[
        bool,
        typer.Option("--hard-positives", help="Keep the least similar positive of an anchor."),
    ] = False,
    positive_score: Annotated[
        float,
        typer.Option(help="For single texts: lowest score of a positive, which is a neighbour."),
    ] = 0.8,
    positive_rank: Annotated[
        int, typer.Option(help="For single texts: last rank of a positive; the farthest is used.")
    ] = 5,
    search: Annotated[
        str, typer.Option(metavar="exact|faiss", help="faiss is approximate and an extra.")
    ] = "exact",
    seed: Annotated[int, typer.Option(help="Seed of random picks.")] = 0,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Text in front of every text; twice: for the anchors of pairs, for candidates. "
            "[default: the model's prompts for queries and documents]",
        ),
    ] = None,
    prompt_name: PromptNames = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Text columns: names, or positions if no header."),
    ] = None,
    on_bad_row: Annotated[
        str, typer.Option(metavar="error|skip", help="Stop at a bad row, or skip and count it.")
    ] = "error",
    device: DeviceName = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing output.")
    ] = False,
    engine: Engine = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Find hard negatives (and hard positives) for FILE with an encoder."""
    with collection_paused(keep=True):
        from simcse_kit.cluster.connection import parse_engine
        from simcse_kit.data.bad_rows import ReadReport
        from simcse_kit.data.lines import read_lines
        from simcse_kit.data.prepare.mine import mine, read_anchors
        from simcse_kit.data.prepare.negative_selection import Mining, parse_ranks
        from simcse_kit.data.prepare.output import check_output
        from simcse_kit.data.read_options import ReadOptions
        from simcse_kit.data.remote import local_paths
        from simcse_kit.encoder.device import known_device
        from simcse_kit.errors import ConfigError
        from simcse_kit.metrics.search import require_faiss
        from simcse_kit.utils.prompt_choice import PromptChoice

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
        prompts=PromptChoice.of(prompt, prompt_name),
    )
    known_device(device)
    cluster = parse_engine(engine)
    if cluster is not None and search != "exact":
        raise ConfigError(
            f"--search {search} runs on one machine; give --search exact, or --engine local"
        )
    # Problems with files are reported before a model is loaded.
    check_output(output, overwrite=overwrite, columns=3)
    if mining.search == "faiss":
        require_faiss()
    skip = cast("Any", on_bad_row)  # checked by ReadOptions
    options = ReadOptions(columns=None if columns is None else columns.split(","), on_bad_row=skip)
    report = ReadReport()
    rows = read_anchors(file, options, report=report)
    more = [text for path in local_paths(pool or ()) for text in read_lines(path, on_bad_row=skip)]
    with collection_paused(keep=True):
        from simcse_kit.encoder.encoder import SentenceEncoder

        encoder = SentenceEncoder.load(model, device="cpu" if cluster else device)
    with ExitStack() as stack:
        by: UnitEncoder = encoder
        if cluster is not None:
            from simcse_kit.cluster.pool import ray_run
            from simcse_kit.cluster.shard_search import ShardSearch
            from simcse_kit.cluster.vectors import ClusterEncoder

            by = ClusterEncoder(encoder, stack.enter_context(ray_run(cluster, model, {}, device)))
            mining = replace(mining, nearest=ShardSearch())
        summary = mine(
            by, rows, output, mining, candidates=more, overwrite=overwrite, progress=True
        )
    summary.take(report)
    typer.echo(json.dumps(summary.to_json()) if as_json else summary.text())
