"""Tables of names whose targets are imported on first use, and that packages can extend."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from simcse_kit.errors import ConfigError

__all__ = ["Registry", "closest", "import_outside", "is_outside", "is_within"]

logger = logging.getLogger(__name__)


def closest(name: str, choices: list[str]) -> str:
    """Return a hint for an error message, such as `` (did you mean 'x'?)``, or an empty string."""
    near = difflib.get_close_matches(name, choices, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def is_outside(name: str) -> bool:
    """Whether a name has the form ``module:Attribute``, which imports code of another package."""
    return ":" in name


def is_within(name: str, modules: Collection[str]) -> bool:
    """Whether ``module:Attribute`` or ``module`` belongs to one of these modules or packages."""
    module = name.partition(":")[0]
    return any(module == allowed or module.startswith(f"{allowed}.") for allowed in modules)


def import_outside(name: str, *, what: str) -> Any:
    """Import the attribute ``package.module:Attribute`` from code outside this package.

    Importing a module runs its code, so the caller checks first that the user allows it. Modules
    in the current folder are found too.

    Args:
        name: the module and the attribute in it; an attribute of an attribute is joined by a dot.
        what: noun for the target, for error messages.

    Raises:
        ConfigError: the module cannot be imported, or it has no such attribute.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # code of another package may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{what} {name!r} cannot be imported: {reason}; write it as package.module:Name, with "
            "a module that is installed or in the current folder"
        ) from error
    return found


class Registry(Mapping[str, Any]):
    """A table of names, each with the object or the ``"module:Attribute"`` that it refers to.

    Hyphens and underscores in names are equivalent. A registry with a ``group`` can be extended:
    by :meth:`register`, by the entry points that installed packages declare in this group, and by
    names of the form ``package.module:Attribute``, which need no registration.

    Args:
        kind: noun for an entry, in the singular, for error messages.
        entries: the built-in names.
        group: the entry-point group; None for a registry that cannot be extended.
        base: ``"module:Class"`` that a target from outside this package must be a subclass of.

    Examples:
        >>> shapes = Registry("shape", {"path": "pathlib:Path"})
        >>> shapes.resolve("path").__name__
        'Path'
        >>> shapes.resolve("pahts")
        Traceback (most recent call last):
        ...
        simcse_kit.errors.ConfigError: unknown shape 'pahts' (did you mean 'path'?); known: path
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, str],
        *,
        group: str | None = None,
        base: str | None = None,
    ):
        self.kind = kind
        self._entries: dict[str, Any] = dict(entries)
        self._built_in = frozenset(entries)
        self._group = group
        self._base = base
        self._entry_points_loaded = group is None

    def __getitem__(self, name: str) -> Any:
        return self._entries[self.canonical(name)]

    def __iter__(self) -> Iterator[str]:
        self._load_own_group()
        return iter(self._entries)

    def __len__(self) -> int:
        self._load_own_group()
        return len(self._entries)

    def canonical(self, name: str) -> str:
        """Return the registered spelling of a name, or the name itself if it is unknown."""
        for _ in range(2):
            if name in self._entries:
                return name
            for known in self._entries:
                if known.replace("-", "_") == name.replace("-", "_"):
                    return known
            self._load_own_group()
        return name

    def register(self, name: str, target: Any) -> None:
        """Add a name to the table.

        Args:
            name: the new name.
            target: the object, or ``"module:Attribute"``, which is imported on first use.

        Raises:
            ConfigError: the name is taken, or is not a plain name.
        """
        if not name.replace("-", "_").isidentifier():
            raise ConfigError(
                f"{name!r} cannot name a {self.kind}; use letters, digits, _ and -, such as my_own"
            )
        taken = self.canonical(name)
        if taken in self._entries and self._entries[taken] != target:
            raise ConfigError(f"the {self.kind} {taken!r} exists already; choose another name")
        self._entries[taken] = target

    def load_entry_points(self, group: str) -> None:
        """Register the entry points that installed packages declare in a group.

        Nothing is imported. A name that is taken is skipped with a warning.
        """
        for point in entry_points(group=group):
            try:
                self.register(point.name, point.value)
            except ConfigError as error:
                logger.warning(
                    "entry point %s of group %s is skipped: %s", point.value, group, error
                )

    def resolve(self, name: str) -> Any:
        """Return the target of a name, and import it if necessary.

        Raises:
            ConfigError: the name is unknown, and the message lists the known names; or a target
                from outside this package cannot be imported or is not of the right class.
        """
        if self._group is not None and is_outside(name):
            return self._checked(name, import_outside(name, what=self.kind))
        canonical = self.canonical(name)
        if canonical not in self._entries:
            names = sorted(self._entries)
            raise ConfigError(
                f"unknown {self.kind} {name!r}{closest(name, names)}; known: {', '.join(names)}"
            )
        target = self._entries[canonical]
        if canonical in self._built_in:
            module, _, attribute = target.partition(":")
            return getattr(import_module(module), attribute)
        if isinstance(target, str):
            target = import_outside(target, what=self.kind)
        return self._checked(name, target)

    def _load_own_group(self) -> None:
        if not self._entry_points_loaded and self._group is not None:
            self._entry_points_loaded = True
            self.load_entry_points(self._group)

    def _checked(self, name: str, target: Any) -> Any:
        if self._base is None:
            return target
        module, _, attribute = self._base.partition(":")
        base = getattr(import_module(module), attribute)
        if isinstance(target, type) and issubclass(target, base):
            return target
        shown = target.__name__ if isinstance(target, type) else type(target).__name__
        raise ConfigError(
            f"{self.kind} {name!r} refers to {shown}, which is not a subclass of "
            f"{self._base.replace(':', '.')}; name a class that is"
        )
