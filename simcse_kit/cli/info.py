"""`simcse info`"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["info_command"]


def info_command(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, or Hub name.")],
    pooling: Annotated[str | None, typer.Option(help="In place of the model's own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a model is: pooling, head, dimensions, length, dropout, files, fingerprint."""
    from simcse_kit import SentenceEncoder
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
            for path in _model_files(encoder.source)
        },
        "fingerprint": _fingerprint(encoder.source),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        if key == "files":
            for name, size in value.items():
                typer.echo(f"{'file':<14}{name} ({size:,} bytes)")
        else:
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            typer.echo(f"{key:<14}{shown}")


def _model_files(folder: Path) -> list[Path]:
    """The files that make the encoder; not the checkpoints and logs of a training beside them."""
    kinds = {".json", ".safetensors", ".txt", ".model", ".onnx", ".xml", ".bin"}
    found = [*folder.glob("*"), *folder.glob("[0-9]_*/*")]
    extra = {"result.json"}
    return sorted(p for p in found if p.is_file() and p.suffix in kinds and p.name not in extra)


def _fingerprint(folder: Path) -> str:
    """SHA-256 over names and contents: equal fingerprints, equal vectors."""
    digest = hashlib.sha256()
    for path in _model_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
