"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simcse_kit.config import RunConfig

__all__ = [
    "AllowCall",
    "AsJson",
    "BatchSize",
    "ConfigFile",
    "DeviceName",
    "LearningRate",
    "Method",
    "Model",
    "Preset",
    "Prompt",
    "PromptName",
    "Settings",
    "load_run",
]

Model = Annotated[
    str | None, typer.Option(help="Bundled name, folder, or Hub name. [default: mini]")
]
Method = Annotated[
    str | None,
    typer.Option(help="See `simcse methods`, or package.module:Class. [default: by the data]"),
]
Preset = Annotated[
    str | None,
    typer.Option(help="See `simcse presets`; none: no preset. [default: by model and data]"),
]
ConfigFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A run.toml, which overrides the preset.")
]
BatchSize = Annotated[int | None, typer.Option(help="Rows per step.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting: method.temperature=0.1"),
]
AllowCall = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-call",
        metavar="MODULE",
        help="Allow augmentations and configuration files to use code of this module.",
    ),
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")
]
Prompt = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Text in front of every sentence.")
]
PromptName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of one of the model's prompts, instead.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def load_run(
    preset: str | None = None,
    file: str | None = None,
    settings: list[str] | None = None,
    allow_call: list[str] | None = None,
    *,
    choose_preset: bool = False,
    **named: Any,
) -> RunConfig:
    """Resolve the configuration of a training run from the options of a command.

    Args:
        preset: name of a preset.
        file: a TOML file.
        settings: texts ``key=value`` of ``--set``.
        allow_call: modules of ``--allow-call``.
        choose_preset: choose a preset by model and data if none is named.
        **named: values by the names of :data:`~simcse_kit.config.SHORT_NAMES`; None is left out.
    """
    from simcse_kit.config import named_settings
    from simcse_kit.utils.settings import parse_setting

    tables = [*map(parse_setting, settings or []), named_settings(**named)]
    if choose_preset:
        from simcse_kit.training.preset_choice import load_run_config as load
    else:
        from simcse_kit.config_files import load_config as load
    return load(preset=preset, file=file, overrides=tables, allow_call=allow_call or ())
