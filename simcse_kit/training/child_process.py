"""Training runs in processes of their own, with the permissions of the current process."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from simcse_kit.config import RunConfig
from simcse_kit.registry import is_outside

__all__ = ["error_line", "permission_flags", "train_command"]


def train_command(file: Path, flags: Collection[str], *, quiet: bool = False) -> list[str]:
    """Build the command that trains with a configuration file and further flags."""
    options = ["--quiet"] if quiet else []
    return [sys.executable, "-m", "simcse_kit", *options, "train", "--config", str(file), *flags]


def permission_flags(config: RunConfig, allow_call: Collection[str]) -> list[str]:
    """Build the flags that let a child process run the code that this process may run.

    Args:
        config: the configuration; if ``model.trust_remote_code`` is true, it was allowed here.
        allow_call: modules whose functions augmentations may call.
    """
    flags = [part for module in allow_call for part in ("--allow-call", module)]
    if is_outside(config.method.name):
        flags += ["--method", config.method.name]
    if config.model.trust_remote_code:
        flags += ["--set", "model.trust_remote_code=true"]
    return flags


def error_line(stderr: str) -> str:
    """Return the last line of what a failed command wrote, without the prefix of errors."""
    lines = stderr.strip().splitlines() or ["no message"]
    return lines[-1].removeprefix("simcse: error: ")
