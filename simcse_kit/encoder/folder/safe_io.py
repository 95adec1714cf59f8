"""Safe reading of the files of a model folder, none of which is trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from simcse_kit.errors import ModelError

__all__ = ["check_finite", "inside", "read_json", "read_object", "read_tensor", "shard_map"]


def read_json(path: Path) -> Any:
    """Parse a JSON file of a model folder.

    Raises:
        ModelError: The file is missing, not a regular file, or not JSON.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait forever
            raise ModelError(f"{path} is not a regular file; copy the model's own file there")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that holds an object.

    Raises:
        ModelError: The file cannot be parsed, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def inside(folder: Path, relative: str) -> Path:
    """Resolve a path that a file of the folder names.

    Raises:
        ModelError: The path leads out of the folder.
    """
    # Links are not followed: in the Hub's cache all files are links to another folder.
    name = os.path.normpath(relative or ".")
    if Path(name).is_absolute() or Path(name).parts[:1] == ("..",):
        raise ModelError(f"{folder}: path {relative!r} leads out of the folder")
    return folder / name


def shard_map(index: Path) -> dict[str, Any]:
    """Read the name of the file that holds each weight.

    Raises:
        ModelError: The index cannot be read or has no such map.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict):
        raise ModelError(f"{index} has no weight_map of names to files")
    return found


def read_tensor(folder: Path, key: str) -> Tensor | None:
    """Read one tensor of a folder's safetensors weights, sharded or not; None if it is missing.

    Raises:
        ModelError: The weights cannot be read.
    """
    file = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if not file.exists() and index.exists():
        shard = shard_map(index).get(key)
        if shard is None:
            return None
        file = inside(folder, str(shard))
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as weights:
            if key not in weights.keys():  # noqa: SIM118 - safe_open is not a mapping
                return None
            tensor: Tensor = weights.get_tensor(key)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None


def check_finite(weights: Iterable[tuple[str, Tensor | None]], where: Path) -> None:
    """Refuse weights that are NaN or infinite, since the vectors would be NaN or silently wrong.

    Args:
        weights: Name and value of each weight.
        where: Folder that the weights come from.

    Raises:
        ModelError: A weight is NaN or infinite.
    """
    for name, weight in weights:
        # One sum is faster than a test of each number, and is finite only if all of them are.
        if weight is None or bool(weight.sum().isfinite()) or bool(weight.isfinite().all()):
            continue
        raise ModelError(
            f"{where}: {name} holds NaN or infinity; the checkpoint is damaged, or its training "
            "diverged"
        )
