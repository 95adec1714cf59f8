"""What a command line allows and a file cannot: code that is not of this package."""

from __future__ import annotations

from collections.abc import Collection

from simcse_kit.config import RunConfig

__all__ = ["grant_flags"]


def grant_flags(config: RunConfig, allow_call: Collection[str]) -> list[str]:
    """The flags with which a run in a process of its own may run what this one may.

    Args:
        config: the run; ``model.trust_remote_code`` was allowed where it is true.
        allow_call: modules whose functions augmentations may call.
    """
    flags = [part for module in allow_call for part in ("--allow-call", module)]
    if config.model.trust_remote_code:
        flags += ["--set", "model.trust_remote_code=true"]
    return flags
