"""Where and with what a number was made: versions, processor, threads, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata

__all__ = ["environment"]

_PACKAGES = ("simcse-kit", "torch", "transformers", "tokenizers", "numpy", "scipy")


def environment() -> dict[str, str]:
    """What a result depends on besides data, model and settings, by name.

    ``python`` and the versions of the packages, ``cpu``, ``threads`` (of torch), ``system``, and
    ``commit`` of the repository that the current folder is in, with a ``+`` where its files have
    changed since; the last is left out where there is none.
    """
    import torch

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package.replace("-", "_")] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package.replace("-", "_")] = "not installed"
    found["cpu"] = _processor()
    found["threads"] = str(torch.get_num_threads())
    found["system"] = f"{platform.system()} {platform.machine()}"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    commit = _commit()
    return found if commit is None else found | {"commit": commit}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no file of ours
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({os.cpu_count()} cores)"


def _commit() -> str | None:
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
