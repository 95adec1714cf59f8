"""Command `simcse similarity`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from simcse_kit.cli.options import DeviceName
from simcse_kit.utils.process import collection_paused

__all__ = ["similarity_command"]


def similarity_command(
    model: Annotated[str, typer.Argument(help="Bundled name, folder, or Hub name.")],
    first: Annotated[str, typer.Argument(metavar="SENTENCE", help="A sentence.")],
    second: Annotated[str, typer.Argument(metavar="SENTENCE", help="Another sentence.")],
    pooling: Annotated[str | None, typer.Option(help="Pooling to use instead.")] = None,
    device: DeviceName = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print the cosine similarity of two sentences, from -1 to 1."""
    with collection_paused(keep=True):
        from simcse_kit import SentenceEncoder

        encoder = SentenceEncoder.load(model, pooling=pooling, device=device)
    value = float(encoder.similarity(first, second)[0, 0])
    if as_json:
        from simcse_kit.encoder.token_counts import count_tokens

        tokens = count_tokens(encoder, [first, second]).to_json()
        typer.echo(json.dumps({"similarity": value, "tokens": tokens}))
        return
    typer.echo(f"{value:.4f}")
