"""Tables of names whose classes are imported only when they are used."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from simcse_kit.errors import ConfigError

__all__ = ["Registry", "closest"]


def closest(name: str, choices: list[str]) -> str:
    """A hint for an error message: `` (did you mean 'x'?)``, or nothing where no choice is near."""
    near = difflib.get_close_matches(name, choices, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


class Registry(Mapping[str, str]):
    """Name -> ``"module:Attribute"``, imported on :meth:`resolve`.

    Args:
        kind: what the names stand for, in the singular; used in messages.
        entries: the table.
    """

    def __init__(self, kind: str, entries: dict[str, str]):
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def resolve(self, name: str) -> Any:
        """Import and return what ``name`` stands for.

        Raises:
            ConfigError: the name is not in the table; the message lists the names.
        """
        if name not in self._entries:
            names = sorted(self._entries)
            raise ConfigError(
                f"unknown {self.kind} {name!r}{closest(name, names)}; known: {', '.join(names)}"
            )
        module, _, attribute = self._entries[name].partition(":")
        return getattr(import_module(module), attribute)
