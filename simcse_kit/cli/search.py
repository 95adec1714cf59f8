"""Command `simcse search`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from simcse_kit.cli.options import DeviceName, ModelOfIndex, open_index
from simcse_kit.errors import DataError

if TYPE_CHECKING:
    from simcse_kit.search import Hit

__all__ = ["search_command"]

# Number of queries that are encoded and searched at a time.
_QUERIES = 1024


def search_command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the index.")],
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY...", help="Sentences to search for.")
    ] = None,
    queries_file: Annotated[
        str | None,
        typer.Option(
            "--queries", metavar="FILE", help="Further queries, one per line; - for stdin."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Largest number of results per query.")] = 5,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest cosine of a result, -1 to 1.")
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Join the ranking by cosine with one by BM25.")
    ] = False,
    filter: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Condition on the metadata, such as 'year > 2000'; for --engine milvus.",
        ),
    ] = None,
    model: ModelOfIndex = None,
    device: DeviceName = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per query.")
    ] = False,
) -> None:
    """Find the most similar texts of an index for each query."""
    from simcse_kit.search.queries import check_queries, check_search

    check_search(top_k, threshold)
    given = check_queries(queries or [])
    if not given and queries_file is None:
        raise DataError("there is no query; give one as an argument, or a file with --queries")
    if hybrid:
        from simcse_kit.search.hybrid import require_hybrid

        require_hybrid()
    from simcse_kit.data.lines import read_lines
    from simcse_kit.data.remote import local_file
    from simcse_kit.utils.progress import progress_bar

    more = [] if queries_file is None else list(read_lines(local_file(queries_file)))
    index = open_index(folder, model, device)
    asked = [*given, *more]
    with progress_bar(len(asked), desc="searching", delay=2) as bar:
        for start in range(0, len(asked), _QUERIES):
            part = asked[start : start + _QUERIES]
            found = index.search(part, top_k, threshold, hybrid=hybrid, filter=filter)
            for query, hits in zip(part, found, strict=True):
                line = {"query": query, "hits": [hit.to_dict() for hit in hits]}
                typer.echo(json.dumps(line) if as_json else _text(query, hits))
            bar.update(len(part))


def _text(query: str, hits: Sequence[Hit]) -> str:
    width = max((len(hit.id) for hit in hits), default=0)
    lines = [
        f"  {hit.cosine:7.4f}  {hit.id:<{width}}  {' '.join(hit.text.split())}" for hit in hits
    ]
    return "\n".join([query, *lines])
