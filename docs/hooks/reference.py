"""Markdown of the reference pages and tables, generated from the code.

Nothing here depends on mkdocs: every function returns Markdown, so the tests call them directly.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel

from simcse_kit.cli.main import app
from simcse_kit.config import RunConfig
from simcse_kit.config_files import preset_path, presets
from simcse_kit.data.augment import AUGMENTATIONS
from simcse_kit.encoder.pooling import POOLINGS
from simcse_kit.methods import METHODS
from simcse_kit.methods.common.objective_registry import OBJECTIVES
from simcse_kit.registry import Registry
from simcse_kit.utils.settings import read_toml

__all__ = ["PAGES", "TABLES"]


def cli_page() -> str:
    """Return the reference page of all commands."""
    parts = [
        "# Command line\n\nGenerated from the commands of this version. `simcse COMMAND --help` "
        "prints the same.\n"
    ]
    for name, command in _commands(typer.main.get_command(app), "simcse"):
        context = command.make_context(name, [], resilient_parsing=True)
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts.append(f"## {name}\n\n{_prose(command.help)}\n\n```text\n{usage}\n```\n")
        parameters = [
            record for item in command.params if (record := item.get_help_record(context))
        ]
        rows = [(f"`{_cell(name)}`", _cell(text)) for name, text in parameters]
        if rows:
            parts.append(_table(("argument or option", "meaning"), rows))
    return "\n".join(parts)


def configuration_page() -> str:
    """Return the reference page of the configuration: `run.toml`, methods, presets."""
    parts = [
        "# Configuration\n\nGenerated from the code of this version. Every key can be set in a "
        "`run.toml`, in a preset, or with `--set TABLE.KEY=VALUE`; see "
        "[Training](../training.md#presets-and-settings).\n"
    ]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            parts.append(f"## [{name}]\n\n{_sentence(field.description)}\n")
            continue
        parts.append(f"## [{name}]\n\n{_prose(section.__doc__)}\n\n{_fields(section)}")
    parts.append(
        "## Options of each method\n\nThe other keys of `[method]` depend on `method.name`.\n"
    )
    for name, method in _own(METHODS):
        config = method.Config
        parts.append(f"### {name}\n\n{_prose(config.__doc__)}\n\n{_fields(config)}")
    parts.append("## Presets\n\nThe comments give source and expected score.\n")
    parts.extend(
        f"### {name}\n\n```toml\n{preset_path(name).read_text(encoding='utf-8').strip()}\n```\n"
        for name in presets()
    )
    return "\n".join(parts)


def methods_table() -> str:
    """Return a table of the training methods: paper, data, presets."""
    by_method: dict[str, list[str]] = {}
    for preset in presets():
        method = read_toml(preset_path(preset)).get("method", {}).get("name", "simcse")
        by_method.setdefault(method, []).append(f"`{preset}`")
    rows = []
    for name, method in _own(METHODS):
        paper = method.paper
        reference = f"{paper.title}, {paper.year}"
        if paper.arxiv:
            reference = f"[{reference}](https://arxiv.org/abs/{paper.arxiv})"
        link = f"[`{name}`](reference/configuration.md#{name})"
        rows.append((link, reference, ", ".join(method.reads), ", ".join(by_method.get(name, []))))
    return _table(("`--method`", "paper", "reads", "presets"), rows)


def objectives_table() -> str:
    """Return a table of the objectives and their arguments."""
    rows = [(f"`{name}{_arguments(make)}`",) for name, make in OBJECTIVES.items()]
    return _table(("`method.objective`, with its arguments and their defaults",), rows)


def augmentations_table() -> str:
    """Return a table of the augmentations and their arguments."""
    rows = []
    for name, make in _own(AUGMENTATIONS):
        summary = (inspect.getdoc(make) or "").split("\n\n")[0]
        rows.append((f"`{name}{_arguments(make)}`", _prose(summary)))
    return _table(("augmentation", "effect"), rows)


def poolings_table() -> str:
    """Return a table of the poolings."""
    return _table(
        ("pooling", "vector of a sentence"),
        [(f"`{name}`", text) for name, text in POOLINGS.items()],
    )


def extras_table() -> str:
    """Return a table of the optional packages that users can install."""
    project = read_toml(Path(__file__).resolve().parents[2] / "pyproject.toml")["project"]
    rows = [
        (f"`{name}`", ", ".join(f"`{item}`" for item in packages))
        for name, packages in project["optional-dependencies"].items()
        if name not in ("browser", "dev", "docs")
    ]
    return _table(("extra", "packages"), rows)


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli_page,
    "reference/configuration.md": configuration_page,
}
"""Path below docs/ -> function that makes the page."""

TABLES: dict[str, Callable[[], str]] = {
    "methods": methods_table,
    "objectives": objectives_table,
    "augmentations": augmentations_table,
    "extras": extras_table,
    "poolings": poolings_table,
}
"""Name in a ``<!-- generated: NAME -->`` comment -> function that makes the table."""


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, with its full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for key, child in command.commands.items():
        yield from _commands(child, f"{name} {key}")


def _own(registry: Registry) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a registry, without those of other packages that are installed."""
    for name in registry:
        target = registry.resolve(name)
        if target.__module__.startswith("simcse_kit."):
            yield name, target


def _fields(config: type[BaseModel]) -> str:
    rows = []
    for name, field in config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        allowed = f"{_type(field.annotation)}{_bounds(field.metadata)}"
        rows.append((f"`{name}`", allowed, f"`{_value(default)}`", _sentence(field.description)))
    return _table(("key", "value", "default", "meaning"), rows)


def _value(value: Any) -> str:
    """Return a default as TOML would spell it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace("'", '"')


def _type(annotation: Any) -> str:
    arguments = [item for item in get_args(annotation) if item is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{_value(item)}`" for item in arguments)
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin is dict:
        return "table"
    if origin is Union or arguments:
        return " or ".join(dict.fromkeys(map(_type, arguments)))
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(item, key)}"
        for item in metadata
        for key, sign in signs.items()
        if getattr(item, key, None) is not None
    ]
    return f", {' and '.join(found)}" if found else ""


def _arguments(make: Any) -> str:
    parameters = inspect.signature(make).parameters.values()
    shown = [
        item.name if item.default is item.empty else f"{item.name}={item.default!r}"
        for item in parameters
    ]
    return f"({', '.join(shown)})" if shown else ""


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *map(list, rows)]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _prose(docstring: str | None) -> str:
    """Return the text of a docstring without the roles and backticks of reStructuredText."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _sentence(text: str | None) -> str:
    """Return a description as a sentence; a first word such as bf16 stays as it is written."""
    text = (text or "").strip()
    text = re.sub(r"^[a-z](?=[a-z]+\b)", lambda letter: letter[0].upper(), text)
    return text + ("" if not text or text.endswith(".") else ".")
