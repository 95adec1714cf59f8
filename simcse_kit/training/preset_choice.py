"""Choice of the preset by the model and the training data, if the user names none."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig, TrainingSection
from simcse_kit.config_files import load_config, preset_path
from simcse_kit.data.readers import Kind
from simcse_kit.encoder.folder.load import is_sentence_encoder
from simcse_kit.encoder.folder.resolve import EMBEDDED, resolve_model
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods import find_method
from simcse_kit.registry import is_outside
from simcse_kit.training.data_defaults import first_kind
from simcse_kit.utils.distributed import launched
from simcse_kit.utils.settings import read_toml, validated

__all__ = ["DEFAULTS_FILE", "Choice", "choose", "load_run_config"]

logger = logging.getLogger(__name__)

DEFAULTS_FILE = "training_defaults.toml"
"""File of a model folder with the settings that are recommended for training the model."""

_NOUNS: dict[Kind, str] = {
    "texts": "single sentences",
    "pairs": "pairs",
    "triplets": "triplets",
    "labelled": "pairs with scores",
}
# What a model may recommend: how to train, but neither files nor code.
_ALLOWED = {
    "model": {"pooling"},
    "data": {"max_length", "augment"},
    "training": {
        *("epochs", "max_steps", "batch_size", "learning_rate", "schedule", "warmup_ratio"),
        *("weight_decay", "max_grad_norm", "patience"),
    },
    "evaluation": {"every"},
}


@dataclass(frozen=True)
class Choice:
    """Settings that fit a model and data.

    Attributes:
        name: the preset, or the file of the model.
        reason: why it was chosen, as a clause.
        table: the settings, which all others override.
    """

    name: str
    reason: str
    table: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The name of the method."""
        name: str = self.table.get("method", {}).get("name", "simcse")
        return name


def load_run_config(
    *,
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Iterable[Mapping[str, Any]] = (),
    source: str = "command line",
    allow_call: Collection[str] = (),
) -> RunConfig:
    """Resolve the configuration of a run, and choose a preset if none is named.

    No preset is chosen if ``file`` has a table ``[method]``, as every run.toml has, or if a method
    is named that is not the one of the fitting preset.

    Args:
        preset: name of a packaged preset; ``"none"`` for the defaults without a preset.
        file: see :func:`~simcse_kit.config_files.load_config`.
        overrides: see there.
        source: see there.
        allow_call: see there.

    Raises:
        ConfigError: as :func:`~simcse_kit.config_files.load_config`, and if the file of the model
            has a setting that a model may not set.
    """
    overrides = list(overrides)
    config = load_config(
        preset=preset, file=file, overrides=overrides, source=source, allow_call=allow_call
    )
    if preset is not None or (file is not None and "method" in read_toml(Path(file))):
        return config
    choice = choose(config)
    named = "name" in config.method.model_fields_set
    if choice is None or (named and config.method.name != choice.method):
        return config
    if launched()[0] == 0:
        logger.info(
            "the settings are those of %s, because %s; what you set yourself is kept; choose "
            "others with --preset NAME, or the plain defaults with --preset none",
            choice.name,
            choice.reason,
        )
    return load_config(
        base=(choice.name, choice.table),
        file=file,
        overrides=overrides,
        source=source,
        allow_call=allow_call,
    )


def choose(config: RunConfig) -> Choice | None:
    """Choose the settings that fit the model and the training data of a configuration.

    The first that applies:

    1. if teachers are named, preset ``distill``;
    2. the file :data:`DEFAULTS_FILE` of the model folder, if its method reads the data;
    3. for pairs with scores, preset ``graded``;
    4. for a model that is a finished sentence encoder, preset ``adapt``;
    5. for ``mini``, ``mini-unsup`` or ``mini-sup``, by the data;
    6. for any other model, ``simcse-unsup`` or ``simcse-sup``.

    Settings that depend on the machine stay at their defaults: the precision, and a batch size
    above the default. A finished encoder keeps its pooling.

    Returns:
        None if the model or the data cannot be opened, which is refused later with the reason, or
        if no preset fits, as for documents.

    Raises:
        ConfigError: the file of the model is damaged, or has a setting that it may not set.
        ConfigError, DataError: the data is not on this machine and cannot be copied.
    """
    kind, folder, finished = first_kind(config.data), None, False
    model = config.model
    # Errors of the model are raised later, after the settings have been checked.
    with suppress(ModelError):
        folder = resolve_model(model.name, trust_remote_code=model.trust_remote_code)
        finished = is_sentence_encoder(folder)
    if kind not in _NOUNS or folder is None:
        return None
    if config.method.options.get("teachers"):
        return Choice("preset 'distill'", "teachers are named", read_toml(preset_path("distill")))
    data = f"the data are {_NOUNS[kind]}"
    recommended = _recommended(folder, kind)
    if recommended is not None:
        name = f"{DEFAULTS_FILE} of model {model.name!r}"
        return Choice(name, f"the model recommends them and {data}", recommended)
    suffix = "unsup" if kind == "texts" else "sup"
    encoder = f"model {model.name!r} is a finished sentence encoder"
    if kind == "labelled":
        name, reason = "graded", data
    elif finished:
        name, reason = "adapt", encoder
    elif folder == EMBEDDED["mini"]:
        name, reason = f"mini-{suffix}", f"the model is mini and {data}"
    else:
        raw = f"model {model.name!r} is not a finished sentence encoder"
        name, reason = f"simcse-{suffix}", f"{raw} and {data}"
    table = _portable(read_toml(preset_path(name)), keeps_pooling=finished)
    return Choice(f"preset {name!r}", reason, table)


def _portable(preset: dict[str, Any], *, keeps_pooling: bool) -> dict[str, Any]:
    """Leave out what depends on the machine, and what belongs to the model."""
    table = {name: dict(section) for name, section in preset.items()}
    table["training"].pop("precision", None)
    if table["training"].get("batch_size", 0) > TrainingSection().batch_size:
        del table["training"]["batch_size"]
    model = table.pop("model", {})
    if "pooling" in model and not keeps_pooling:
        table["model"] = {"pooling": model["pooling"]}
    return table


def _recommended(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """Read the settings that a model recommends; None if it has none for this kind of data.

    Raises:
        ConfigError: the file is damaged, or has a setting that it may not set.
    """
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return None
    table = read_toml(path)
    validated(RunConfig, table, where=str(path))
    for section, settings in table.items():
        if section == "method":
            continue
        for key in settings:
            if key not in _ALLOWED.get(section, ()):
                raise ConfigError(
                    f"{path}: a model cannot recommend {section}.{key}; remove the line, or ignore "
                    "the file with --preset none"
                )
    name = table.get("method", {}).get("name", "simcse")
    if is_outside(name):
        raise ConfigError(
            f"{path}: method.name = {name!r} imports code, which the file of a model cannot allow; "
            "remove the line, or ignore the file with --preset none"
        )
    return table if kind in find_method(name).reads else None
