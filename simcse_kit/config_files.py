"""Sources of a configuration: presets, TOML files and flags.

Later sources win: defaults, then ``--preset``, then ``--config run.toml``, then ``--set`` and the
named flags. Unknown keys are refused. The resolved configuration is written before the first step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest, is_outside, is_within
from simcse_kit.utils.settings import merge, read_toml, validated

__all__ = ["NO_PRESET", "load_config", "preset_path", "presets"]

NO_PRESET = "none"
"""Name in place of a preset, for the defaults without one."""

PRESET_FOLDER = Path(__file__).resolve().parent / "presets"


def presets() -> list[str]:
    """List the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def preset_path(name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in presets():
        raise ConfigError(
            f"unknown preset {name!r}{closest(name, presets())}; known: {', '.join(presets())}, "
            f"or {NO_PRESET} for the defaults without a preset"
        )
    return PRESET_FOLDER / f"{name}.toml"


def load_config(
    *,
    preset: str | None = None,
    base: tuple[str, Mapping[str, Any]] | None = None,
    file: str | Path | None = None,
    overrides: Iterable[Mapping[str, Any]] = (),
    source: str = "command line",
    allow_call: Collection[str] = (),
) -> RunConfig:
    """Resolve the configuration of a run.

    Args:
        preset: name of a packaged preset, or ``"none"``.
        base: settings in place of a preset, after their name for messages.
        file: a TOML file, which overrides the preset.
        overrides: nested tables, which override both; later tables win.
        source: where ``overrides`` come from, named in messages.
        allow_call: modules and packages whose methods the file may name.

    Raises:
        ConfigError: a file is missing or not valid TOML, a key is unknown, a value is not allowed,
            or the file alone would let code of a model or of another package run.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [] if base is None else [base]
    overrides = list(overrides)
    if preset not in (None, NO_PRESET):
        layers.append((f"preset {preset}", read_toml(preset_path(preset))))
    if file is not None:
        layers.append((str(file), read_toml(Path(file))))
        _check_outside_code(layers[-1][1], str(file), overrides, allow_call)
    layers += [(source, table) for table in overrides]
    merged: dict[str, Any] = {}
    for where, table in layers:
        # Every key has a default, so each source can be checked separately and named in the error.
        validated(RunConfig, table, where=where)
        merged = merge(merged, table)
    config: RunConfig = validated(RunConfig, merged, where="the configuration")
    return config


def _check_outside_code(
    table: Mapping[str, Any],
    file: str,
    overrides: Iterable[Mapping[str, Any]],
    allow_call: Collection[str],
) -> None:
    """Refuse a file that lets code outside this package run, unless the command line does too."""

    def value(layer: Mapping[str, Any], section: str, key: str) -> Any:
        content = layer.get(section)
        return content.get(key) if isinstance(content, Mapping) else None

    method = value(table, "method", "name")
    outside = isinstance(method, str) and is_outside(method) and not is_within(method, allow_call)
    if outside and all(value(layer, "method", "name") is None for layer in overrides):
        raise ConfigError(
            f"{file}: method.name = {method!r} imports code, which a file cannot allow; if you "
            f"trust that code, add --method {method}"
        )

    def allows(layer: Mapping[str, Any]) -> bool:
        return bool(value(layer, "model", "trust_remote_code"))

    if allows(table) and not any(map(allows, overrides)):
        raise ConfigError(
            f"{file}: model.trust_remote_code = true lets Python code of the model run, which a "
            "file cannot allow; if you trust that code, add --set model.trust_remote_code=true"
        )
