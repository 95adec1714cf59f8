"""griffe extensions: roles in docstrings, and keyword arguments that a TypedDict describes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Turn :class:`~package.module.Name` and doubled backticks into inline code."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", obj.docstring.value)
            obj.docstring.value = text.replace("``", "`")


class Keywords(griffe.Extension):
    """Show ``**options: Unpack[SomeTypedDict]`` as the keyword arguments that it stands for.

    The descriptions come from the "Attributes" section of the TypedDict, unless the function
    describes the arguments itself.
    """

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every function of a package."""
        for function in _functions(pkg):
            found = _unpacked(function)
            if found is not None:
                _expand(function, *found)


def _functions(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    for member in parent.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif isinstance(member, griffe.Module | griffe.Class):
            yield from _functions(member)


def _unpacked(function: griffe.Function) -> tuple[griffe.Parameter, griffe.Class] | None:
    """Return the variadic argument of a function, and the TypedDict that it unpacks."""
    for parameter in function.parameters:
        annotation = parameter.annotation
        if (
            parameter.kind is griffe.ParameterKind.var_keyword
            and isinstance(annotation, griffe.ExprSubscript)
            and annotation.canonical_path == "typing.Unpack"
        ):
            found = function.modules_collection[annotation.slice.canonical_path]
            return parameter, found.final_target if found.is_alias else found
    return None


def _expand(function: griffe.Function, variadic: griffe.Parameter, options: griffe.Class) -> None:
    for name, attribute in options.attributes.items():
        function.parameters[name] = griffe.Parameter(
            name,
            annotation=attribute.annotation,
            kind=griffe.ParameterKind.keyword_only,
            default="...",
        )
    # The docstring is parsed here, and parsing warns of arguments that the signature lacks.
    arguments = _items(function.docstring, griffe.DocstringSectionKind.parameters)
    described = _items(options.docstring, griffe.DocstringSectionKind.attributes)
    del function.parameters[variadic.name]
    known = {item.name for item in arguments}
    if described or known & options.attributes.keys():
        arguments[:] = [item for item in arguments if item.name.lstrip("*") != variadic.name]
    arguments += [
        griffe.DocstringParameter(
            item.name,
            description=item.description,
            annotation=options.attributes[item.name].annotation,
            value="...",
        )
        for item in described
        if item.name not in known
    ]


def _items(docstring: griffe.Docstring | None, kind: griffe.DocstringSectionKind) -> list[Any]:
    """Return the entries of a section of a docstring; empty if there is none."""
    sections = docstring.parsed if docstring else []
    return next((section.value for section in sections if section.kind is kind), [])
