"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simcse_kit.config import RunConfig
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.search import SearchIndex

__all__ = [
    "AllowCall",
    "AsJson",
    "BatchSize",
    "ConfigFile",
    "DeviceName",
    "Engine",
    "LearningRate",
    "Method",
    "Model",
    "ModelOfIndex",
    "Preset",
    "Prompt",
    "PromptName",
    "PromptNames",
    "Settings",
    "load_encoder",
    "load_run",
    "open_index",
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
Engine = Annotated[
    str,
    typer.Option(metavar="local|ray[:ADDRESS]", help="ray: a cluster, or workers of this machine."),
]
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
ModelOfIndex = Annotated[
    str | None,
    typer.Option("--model", help="The encoder, if it has moved. [default: as it was built]"),
]
PromptNames = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt-name",
        metavar="NAME",
        help="Name of one of the model's prompts, instead; or twice.",
    ),
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


def load_encoder(model: str, device: str, *, trust_remote_code: bool = False) -> SentenceEncoder:
    """Load the encoder of a command, with the settings that suit a program.

    Args:
        model: bundled name, folder, or Hub name.
        device: where to compute.
        trust_remote_code: whether Python code of the model may run.
    """
    from simcse_kit.utils.process import collection_paused, keep_few_kernels

    keep_few_kernels()
    with collection_paused(keep=True):
        from simcse_kit.encoder.encoder import SentenceEncoder

        return SentenceEncoder.load(model, device=device, trust_remote_code=trust_remote_code)


def open_index(folder: str, model: str | None, device: str) -> SearchIndex:
    """Open an index with its encoder.

    Args:
        folder: folder of the index.
        model: name or folder of the encoder; None for the one that the index names.
        device: where the encoder computes.
    """
    from pathlib import Path

    from simcse_kit.search.manifest import read_manifest

    name = model or read_manifest(Path(folder)).encoder.model
    encoder = load_encoder(name, device)
    from simcse_kit.search.index import SearchIndex

    return SearchIndex.load(folder, encoder)
