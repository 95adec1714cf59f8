"""Comparison of a resumed run with the run that was started."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_kit.config import MethodSection, RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.training.state.output_dir import CHECKPOINTS, HELD_OUT_DIGEST, RUN_FILE, TEXT_DIGEST
from simcse_kit.utils.settings import read_toml

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
    """Refuse to resume a run that was started with other settings, text or held-out rows.

    Args:
        place: the folder of the run that was started.
        config: the configuration of the resumed run.
        fingerprint: fingerprint of the training text.
        held_out: digest of the held-out rows.
        held_out_before: digest of the rows that versions held out which recorded no digest.
        allow_changed: log what differs and continue.

    Raises:
        ConfigError: something differs, or ``run.toml`` is damaged.
    """
    new = tomllib.loads(config.to_toml())
    # A run of an earlier version has no line for a setting that was added later.
    old = _filled(read_toml(place / RUN_FILE), tomllib.loads(RunConfig().to_toml()))
    method = old["method"]
    if isinstance(method, dict) and isinstance(method.get("name"), str):
        # Earlier versions wrote margin-contrastive.
        method["name"] = MethodSection(name=method["name"]).name
    for table in (old, new):
        training = table.get("training", {})
        training.pop("output", None)  # the same folder in any spelling
        training.pop("device", None)  # the precision is compared
    changes = [
        f"{key} was {_shown(before)}, is {_shown(after)}"
        for key, before, after in _differences(old, new)
    ]
    kept = _digest(place, TEXT_DIGEST)
    if kept is not None and kept != fingerprint:
        changes.append("the training text has other content")
    elif (_digest(place, HELD_OUT_DIGEST) or held_out_before) != held_out:
        changes.append("an earlier version held out, and trained on, other rows")
    if not changes:
        return
    message = f"the run in {place} was started with another configuration: {'; '.join(changes)}"
    if not allow_changed:
        raise ConfigError(
            f"{message}; give the same settings and text, start a new run in another folder, or "
            "resume with --allow-changed"
        )
    logger.warning("%s; it is resumed because of --allow-changed", message)


def _digest(place: Path, name: str) -> str | None:
    path = place / CHECKPOINTS / name
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def _filled(table: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Add the keys that only ``defaults`` has to ``table`` and to its nested tables."""
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
