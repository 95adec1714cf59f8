"""What a resumed run must share with the one that was begun."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_kit.config import MethodSection, RunConfig, read_toml
from simcse_kit.errors import ConfigError
from simcse_kit.training.state.output_dir import CHECKPOINTS, HELD_OUT_DIGEST, RUN_FILE, TEXT_DIGEST

__all__ = ["check_resumable"]

logger = logging.getLogger(__name__)


def check_resumable(
    place: Path,
    config: RunConfig,
    *,
    fingerprint: str,
    held_out: str,
    held_out_before: str,
    allow_changed: bool,
) -> None:
    """Refuse to go on with a run that was begun with other settings, text or rows.

    Args:
        place: the folder of the run that was begun.
        config: of the run that goes on with it.
        fingerprint: of the training text.
        held_out: digest of the rows kept back.
        held_out_before: of those that versions kept back which did not write a digest down.
        allow_changed: log what differs and go on.

    Raises:
        ConfigError: something differs, or ``run.toml`` is damaged.
    """
    new = tomllib.loads(config.to_toml())
    # A run of an earlier version has no line for a setting that came later.
    old = _filled(read_toml(place / RUN_FILE), tomllib.loads(RunConfig().to_toml()))
    method = old["method"]
    if isinstance(method, dict) and isinstance(method.get("name"), str):
        # Earlier versions wrote margin-contrastive.
        method["name"] = MethodSection(name=method["name"]).name
    for table in (old, new):
        table.get("training", {}).pop("output", None)  # the same folder, however it is spelled
    changes = [
        f"{key} was {_shown(before)}, is {_shown(after)}"
        for key, before, after in _differences(old, new)
    ]
    kept = _digest(place, TEXT_DIGEST)
    if kept is not None and kept != fingerprint:
        changes.append("the training text has other content")
    elif (_digest(place, HELD_OUT_DIGEST) or held_out_before) != held_out:
        changes.append("other rows were held out, by an earlier version, and so others trained on")
    if not changes:
        return
    said = f"the run in {place} was started with another configuration: {'; '.join(changes)}"
    if not allow_changed:
        raise ConfigError(
            f"{said}; give the same again, start a new run in another folder, or resume all the "
            "same with --allow-changed"
        )
    logger.warning("%s; it is resumed all the same, as you ask for", said)


def _digest(place: Path, name: str) -> str | None:
    path = place / CHECKPOINTS / name
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def _filled(table: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``table`` with the keys that only ``defaults`` has, in the tables inside too."""
    return defaults | {
        key: _filled(value, defaults[key])
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
        else value
        for key, value in table.items()
    }


def _differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
