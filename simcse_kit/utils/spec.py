"""Parser of options written as calls: ``"delete(0.1)|reorder(2)"``, ``"triplet(margin=0.5)"``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simcse_kit.errors import ConfigError

__all__ = ["Call", "instantiate", "parse_chain", "parse_list"]


# Brackets and commas inside quotes are part of the argument.
_QUOTED = r"""'[^']*'|"[^"]*\""""


@dataclass(frozen=True)
class Call:
    """A name with arguments, which are Python literals.

    Attributes:
        name: the name.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()


def parse_chain(text: str, *, what: str) -> list[Call]:
    """Parse ``"a|b(0.1)|c(x=2)"`` into its calls, in their order.

    Args:
        text: names with or without arguments in brackets, joined by ``|``.
        what: name of the setting, for messages.

    Raises:
        ConfigError: the text has another form, or an argument is not a literal.

    Examples:
        >>> [call.name for call in parse_chain("delete(0.1)|reorder(2)", what="data.augment")]
        ['delete', 'reorder']
    """
    example = "write names with numbers in brackets, joined by |, such as delete(0.1)|reorder(2)"
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return [_call(part) for part in _parts(tree.body)]
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ConfigError(f"{what} is {text!r}, which cannot be read; {example}") from None


def parse_list(text: str, *, what: str) -> list[Call]:
    """Split ``"a,b-c(x=2)"`` into its calls; a name may contain ``-``, ``.`` and ``:``.

    Args:
        text: names, each with arguments in brackets or without, joined by commas.
        what: the setting that the text belongs to, for messages.

    Raises:
        ConfigError: the text is not of that form, or an argument is not a literal.
    """
    found = []
    for part in re.findall(rf"[^,(]+(?:\((?:{_QUOTED}|[^()'\"])*\))?|[,(]", text):
        if part == ",":
            continue
        name, bracket, arguments = part.strip().partition("(")
        if not re.fullmatch(r"[A-Za-z_][\w.:-]*", name):
            raise ConfigError(
                f"{what} is {text!r}, which cannot be read at {part!r}; write names joined by "
                "commas, options in brackets, such as simcse,moco(queue_size=1024)"
            )
        (call,) = parse_chain(f"_({arguments}" if bracket else "_", what=f"{what}, {name}")
        found.append(Call(name, call.args, call.kwargs))
    return found


def _parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_parts(node.left), node.right]
    return [node]


def _call(node: ast.expr) -> Call:
    if isinstance(node, ast.Name):
        return Call(node.id)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError("neither a name nor a call")
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    if None in named:
        raise ValueError("** is not an argument")
    args = tuple(ast.literal_eval(argument) for argument in node.args)
    return Call(node.func.id, args, tuple((str(name), value) for name, value in named.items()))


def instantiate(call: Call, make: Callable[..., Any], *, what: str) -> Any:
    """Call ``make`` with the arguments of a parsed call.

    Args:
        call: the parsed call.
        make: function or class to call; it may refuse a value with ValueError.
        what: name of the setting, for messages.

    Raises:
        ConfigError: the arguments do not fit, or ``make`` refuses their values.
    """
    kwargs = dict(call.kwargs)
    try:
        inspect.signature(make).bind(*call.args, **kwargs)
    except TypeError as error:
        takes = ", ".join(map(str, inspect.signature(make).parameters.values()))
        raise ConfigError(
            f"{what}: {call.name} does not take these arguments ({error}); it takes ({takes})"
        ) from None
    try:
        return make(*call.args, **kwargs)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what}: {call.name}: {error}") from None
