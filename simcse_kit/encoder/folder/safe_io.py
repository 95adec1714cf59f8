"""Reading the files of a model folder, none of which is trusted."""

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
        ModelError: it is missing, no regular file, or no JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise ModelError(f"{path} is no regular file; copy the model's own there")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file that holds an object.

    Raises:
        ModelError: as :func:`read_json`, or it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def inside(folder: Path, relative: str) -> Path:
    """The path of what a file of the folder names.

    Raises:
        ModelError: it leads out of the folder.
    """
    # By name alone: in the Hub's cache the files are links that lead out of their folder.
    name = os.path.normpath(relative or ".")
    if Path(name).is_absolute() or Path(name).parts[:1] == ("..",):
        raise ModelError(f"{folder}: path {relative!r} leads out of the folder")
    return folder / name


def shard_map(index: Path) -> dict[str, Any]:
    """Which file of the folder holds which weight.

    Raises:
        ModelError: the index cannot be read or has no such map.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict):
        raise ModelError(f"{index} has no weight_map of names to files")
    return found


def read_tensor(folder: Path, key: str) -> Tensor | None:
    """One tensor of a folder's safetensors weights, sharded or not."""
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
            if key not in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                return None
            tensor: Tensor = weights.get_tensor(key)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None


def check_finite(weights: Iterable[tuple[str, Tensor | None]], where: Path) -> None:
    """Refuse weights that are NaN or infinite: vectors would be so, or be wrong without a sign.

    Args:
        weights: by name.
        where: the folder they come from.

    Raises:
        ModelError: one is.
    """
    for name, weight in weights:
        # One sum is quicker than looking at each, and finite only if all of them are.
        if weight is None or bool(weight.sum().isfinite()) or bool(weight.isfinite().all()):
            continue
        raise ModelError(
            f"{where}: {name} holds NaN or infinity, no finite number; the checkpoint is damaged, "
            "or its training had diverged"
        )
