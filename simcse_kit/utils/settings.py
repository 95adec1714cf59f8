"""Nested tables of settings: TOML files, ``key=value`` texts, merging, validation."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

__all__ = [
    "lowest_and_highest",
    "merge",
    "nested",
    "parse_setting",
    "read_toml",
    "validated",
    "without_none",
]


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


def lowest_and_highest(value: Any) -> tuple[float, float]:
    """Read a scale: two numbers, or a text such as ``0,5`` from the command line.

    Raises:
        ValueError: the value is not the lowest and the highest score.

    Examples:
        >>> lowest_and_highest("0,5")
        (0.0, 5.0)
    """
    parts = value.split(",") if isinstance(value, str) else value
    try:
        lowest, highest = map(float, parts)
    except (TypeError, ValueError):
        lowest, highest = 1.0, 0.0
    if not -math.inf < lowest < highest < math.inf:
        raise ValueError("must be the lowest and the highest score, such as 0,5")
    return lowest, highest


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


def validated(
    model: type[Any], values: Mapping[str, Any], *, where: str = "", prefix: str = ""
) -> Any:
    """Make a configuration object, with all problems that pydantic finds in one line.

    Args:
        model: the pydantic class.
        values: the given keys and values.
        where: the source to name in the message, such as a file.
        prefix: the table that the keys belong to, such as ``"method"``.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, problem, prefix) for problem in error.errors(include_url=False)]
        raise ConfigError((f"{where}: " if where else "") + " | ".join(problems)) from None


def _problem(model: type[BaseModel], problem: Mapping[str, Any], prefix: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join([prefix, *path] if prefix else path)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, path[:-1])
        return f"unknown key {key!r}{closest(path[-1], known)}; known: {', '.join(known)}"
    if problem["type"] == "model_type":
        return f"{key} is {problem['input']!r}: it must be a table, [{key}]"
    rule = problem["msg"].removeprefix("Value error, ")
    return f"{key} is {problem['input']!r}: {rule[0].lower()}{rule[1:]}{_default(model, path)}"


def _default(model: type[BaseModel], path: list[str]) -> str:
    field = model.model_fields.get(path[0])
    if len(path) > 1 and field is not None and isinstance(field.annotation, type):
        inner = field.annotation
        return _default(inner, path[1:]) if issubclass(inner, BaseModel) else ""
    if field is None or field.default in (PydanticUndefined, None):
        return ""
    return f" (default {field.default!r})"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)


def without_none(value: Any) -> Any:
    """Leave out the keys of nested dictionaries whose value is None, which TOML cannot write.

    Examples:
        >>> without_none({"a": None, "b": {"c": None, "d": 1}})
        {'b': {'d': 1}}
    """
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value
