"""Nested tables of settings: TOML files, ``key=value`` texts, merging."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simcse_kit.errors import ConfigError

__all__ = ["merge", "nested", "parse_setting", "read_toml"]


def nested(key: str, value: Any) -> dict[str, Any]:
    """Nest a value: ``nested("method.temperature", 0.1)`` is ``{"method": {"temperature": 0.1}}``.

    Raises:
        ConfigError: the key has no dot, or an empty part.
    """
    parts = [part.strip() for part in key.split(".")]
    if len(parts) < 2 or not all(parts):
        raise ConfigError(f"{key!r} is not the key of a setting, such as method.temperature")
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def parse_setting(text: str) -> dict[str, Any]:
    """Parse ``"method.temperature=0.1"`` into a nested table; the value is TOML, or else text.

    Raises:
        ConfigError: there is no ``=`` or no key.
    """
    key, equals, raw = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")) or "." not in key:
        raise ConfigError(f"--set {text!r} is not table.key=value, such as method.temperature=0.1")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = raw.strip()
    return nested(key, value)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables key by key; lists and values are replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file as nested tables.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"configuration file {path} cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for TOML") from None
