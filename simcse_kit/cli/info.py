"""`simcse info`"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from simcse_kit.visible import one_line

__all__ = ["info_command"]


def info_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a model is: pooling, head, dimensions, length, dropout, files, fingerprint."""
    from simcse_kit import SentenceEncoder
    from simcse_kit.encoder.fingerprint import fingerprint, model_files
    from simcse_kit.encoder.pooling import POOLINGS

    encoder = SentenceEncoder.load(model, pooling=pooling)
    assert encoder.source is not None
    dropouts = sorted(set(encoder.dropouts().values()))
    head = [
        f"{dense.in_features} -> {dense.out_features} {dense.activation_name}"
        for dense in encoder.head or []
    ]
    facts: dict[str, Any] = {
        "model": model,
        "folder": str(encoder.source),
        "architecture": type(encoder.backbone).__name__,
        "engine": "torch" if encoder.engine is None else encoder.backbone.summary,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "pooling": encoder.pooling,
        "pooling_means": POOLINGS[encoder.pooling],
        "template": "none" if encoder.template is None else encoder.template.text,
        "head": head,
        "normalize": encoder.normalize,
        "dim": encoder.embedding_dim,
        "max_length": encoder.max_length,
        "dropout": dropouts,
        "files": {
            path.relative_to(encoder.source).as_posix(): path.stat().st_size
            for path in model_files(encoder.source)
        },
        "fingerprint": fingerprint(encoder.source),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        if key == "files":
            for name, size in value.items():
                typer.echo(f"{'file':<14}{one_line(name)} ({size:,} bytes)")
        else:
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            typer.echo(f"{key:<14}{one_line(str(shown))}")
