"""A function of the user's, such as a back-translation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from inspect import isclass, ismodule, isroutine
from pathlib import Path
from random import Random
from typing import Any

from simcse_kit.data.augment.base import Augmentation
from simcse_kit.errors import ConfigError, DataError

__all__ = ["CallFunction", "check_allowed"]


class CallFunction(Augmentation):
    """Gives the texts of a batch to a function, ``list[str] -> list[str]``.

    A run repeats itself only if the function does; it gets none of the random numbers. Importing a
    module runs its code: :func:`check_allowed` comes first where the name is from a file.

    Args:
        function: ``'package.module:function'``; the current folder is looked in too.
    """

    def __init__(self, function: str):
        self.function = function
        self._call = _imported(function)

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:  # noqa: ARG002
        """What the function makes of them.

        Raises:
            DataError: it does not give back one string for each text.
        """
        made = self._call(list(texts))
        what = "is no list"
        if isinstance(made, Sequence) and not isinstance(made, str):
            wrong = [item for item in made if not isinstance(item, str)]
            if not wrong and len(made) == len(texts):
                return list(made)
            what = f"holds {wrong[0]!r}" if wrong else f"has {len(made)} texts"
        raise DataError(
            f"augmentation function {self.function} was given {len(texts)} texts, and what it "
            f"gave back {what}; it must give back a list with one string for each text"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By name: workers that are not forked could not unpickle a function of the script.
        return CallFunction, (self.function,)


def check_allowed(function: str, allowed: Collection[str], *, what: str) -> None:
    """Refuse a function of a module that was not named as allowed, before it is imported.

    Args:
        function: ``'package.module:function'``.
        allowed: modules and packages; of a package all modules.
        what: the setting that names the function, for messages.

    Raises:
        ConfigError: its module is not among them.
    """
    module, _ = _parts(function)
    if not _within(module, allowed):
        raise ConfigError(
            f"{what} runs the function {function!r}, which needs leave: if you trust the code of "
            f"{module}, add --allow-call {module} (in Python: allow_call=[{module!r}])"
        )


def _within(module: str, allowed: Collection[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def _parts(name: str) -> tuple[str, str]:
    if not isinstance(name, str) or not all(name.partition(":")):
        raise ValueError(f"function is {name!r}; it must be written 'package.module:function'")
    module, _, attribute = name.partition(":")
    return module, attribute


def _imported(name: str) -> Callable[[list[str]], Any]:
    module, attribute = _parts(name)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
            if ismodule(found):
                raise TypeError(f"{part!r} is another module; name that one")
    except Exception as error:  # the user's module may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"function {name!r} cannot be imported: {reason}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is no function but {type(found).__name__}")
    home = getattr(found, "__module__", None) or module
    if (isroutine(found) or isclass(found)) and not _within(home, [module.partition(".")[0]]):
        raise ValueError(f"{name!r} is a function of {home}; name it there")
    call: Callable[[list[str]], Any] = found
    return call
