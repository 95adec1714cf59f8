"""Augmentation by a function of the user, such as back-translation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from inspect import isclass, ismodule, isroutine
from random import Random
from typing import Any

from simcse_kit.data.augment.base import Augmentation
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.registry import import_outside, is_within

__all__ = ["CallFunction", "check_allowed"]


class CallFunction(Augmentation):
    """Calls a function ``list[str] -> list[str]`` with the texts of a batch.

    The function gets no random numbers, so a run is reproducible only if the function is
    deterministic. Importing a module runs its code, so call :func:`check_allowed` first if the name
    comes from a file.

    Args:
        function: ``'package.module:function'``; modules in the current folder are found too.
    """

    def __init__(self, function: str):
        self.function = function
        self._call = _imported(function)

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:  # noqa: ARG002
        """Return the texts that the function returns.

        Raises:
            DataError: the function does not return a list with one string per text.
        """
        made = self._call(list(texts))
        what = "is not a list"
        if isinstance(made, Sequence) and not isinstance(made, str):
            wrong = [item for item in made if not isinstance(item, str)]
            if not wrong and len(made) == len(texts):
                return list(made)
            what = f"holds {wrong[0]!r}" if wrong else f"has {len(made)} texts"
        raise DataError(
            f"augmentation function {self.function} got {len(texts)} texts, and its result "
            f"{what}; it must return a list with one string per text"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By name, because spawned workers cannot unpickle a function of the main script.
        return CallFunction, (self.function,)


def check_allowed(function: str, allowed: Collection[str], *, what: str) -> None:
    """Refuse a function of a module that is not allowed, before the module is imported.

    Args:
        function: ``'package.module:function'``.
        allowed: modules and packages; a package includes its modules.
        what: name of the setting that names the function, for messages.

    Raises:
        ConfigError: the module is not allowed.
    """
    module, _ = _parts(function)
    if not is_within(module, allowed):
        raise ConfigError(
            f"{what} runs the function {function!r}, which needs permission: if you trust the code "
            f"of {module}, add --allow-call {module} (in Python: allow_call=[{module!r}])"
        )


def _parts(name: str) -> tuple[str, str]:
    if not isinstance(name, str) or not all(name.partition(":")):
        raise ValueError(f"function is {name!r}; it must be written 'package.module:function'")
    module, _, attribute = name.partition(":")
    return module, attribute


def _imported(name: str) -> Callable[[list[str]], Any]:
    module, attribute = _parts(name)
    # A check on one module must not allow the code of another one.
    for depth in range(1, attribute.count(".") + 2):
        part = ".".join(attribute.split(".")[:depth])
        if ismodule(import_outside(f"{module}:{part}", what="function")):
            raise ValueError(f"{name!r}: {part!r} is another module; name that one")
    found: Any = import_outside(name, what="function")
    if not callable(found):
        raise ValueError(f"{name!r} is of type {type(found).__name__}; name a function")
    home = getattr(found, "__module__", None) or module
    if (isroutine(found) or isclass(found)) and not is_within(home, [module.partition(".")[0]]):
        raise ValueError(f"{name!r} is a function of {home}; write '{home}:{found.__qualname__}'")
    call: Callable[[list[str]], Any] = found
    return call
