"""`simcse methods` and `simcse presets`"""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["methods_command", "presets_command"]

_Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def methods_command(as_json: _Json = False) -> None:
    """List the training methods, with paper, data and options."""
    from simcse_kit.methods import METHODS

    entries = {}
    for name in METHODS:
        method = METHODS.resolve(name)
        paper = method.paper
        entries[name] = {
            "title": method.name if paper is None else paper.title,
            "arxiv": None if paper is None else paper.arxiv,
            "year": None if paper is None else paper.year,
            "reads": list(method.reads),
            "options": {
                key: {"default": field.default, "help": field.description}
                for key, field in method.Config.model_fields.items()
            },
        }
    if as_json:
        typer.echo(json.dumps(entries))
        return
    for name, entry in entries.items():
        source = f" ({entry['year']}, arXiv {entry['arxiv']})" if entry["arxiv"] else ""
        typer.echo(f"{name}: {entry['title']}{source}")
        typer.echo(f"  reads {', '.join(entry['reads'])}")
        for key, option in entry["options"].items():
            typer.echo(f"  method.{key} = {option['default']}  # {option['help']}")


def presets_command(as_json: _Json = False) -> None:
    """List the presets. Their comments give the paper, the expected score and the hardware."""
    from simcse_kit.config_files import preset_path, presets

    texts = {name: preset_path(name).read_text(encoding="utf-8") for name in presets()}
    if as_json:
        typer.echo(json.dumps(texts))
        return
    for name, text in texts.items():
        typer.echo(f"{name}\n" + "".join(f"  {line}\n" for line in text.strip().split("\n")))
