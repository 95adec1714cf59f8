"""Connection to a cluster of Ray (provisional copy)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from simcse_kit.errors import ConfigError, MissingExtraError

__all__ = ["connected", "parse_engine"]


@contextmanager
def connected(address: str | None, workers: int | None = None) -> Iterator[Any]:
    """Connect to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")
    except ImportError:
        raise MissingExtraError("--engine ray", "ray") from None
    if ray.is_initialized():
        yield None
        return
    address = (address or "ray").partition(":")[2]
    ray.init(
        address=address or "local",
        **({} if address else {"num_cpus": workers, "include_dashboard": False}),
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield None
    finally:
        ray.shutdown()


def parse_engine(text: str) -> str | None:
    """Parse the option --engine."""
    name, colon, address = text.partition(":")
    if text == "local":
        return None
    if name != "ray" or (colon and not address):
        raise ConfigError(f"--engine {text!r}; allowed: local, ray, ray:ADDRESS")
    return text
