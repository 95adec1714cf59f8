"""The options of a training method, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

if TYPE_CHECKING:
    from simcse_kit.methods.common.base import Method

__all__ = ["DropoutConfig", "MethodConfig", "inert", "parse_config"]


class MethodConfig(BaseModel):
    """Base of every method's options: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1.0, which turns a slip into a temperature.
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if bool not in (annotation, *get_args(annotation)):
                raise ValueError("must not be true or false")
        return value


class DropoutConfig(MethodConfig):
    """Base of the options of methods whose views differ by dropout."""

    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="set every dropout of the encoder; unset keeps its own",
    )


def inert(options: MethodConfig, *keys: str, because: str) -> list[str]:
    """A sentence for each of these options that was changed from its default, to no effect.

    Args:
        options: of the method.
        keys: of options that do nothing.
        because: why.
    """
    fields = type(options).model_fields
    return [
        f"method.{key} = {getattr(options, key)!r} has no effect, because {because}"
        for key in keys
        if getattr(options, key) != fields[key].get_default(call_default_factory=True)
    ]


def parse_config(method: type[Method], options: Mapping[str, Any]) -> MethodConfig:
    """The method's ``Config`` made of ``options``, with errors a user can act on.

    Raises:
        ConfigError: one line that names every unknown key and every value that is not allowed.
    """
    try:
        return method.Config.model_validate(dict(options))
    except ValidationError as error:
        fields = method.Config.model_fields
        problems = []
        for problem in error.errors(include_url=False):
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                names = list(fields)
                problems.append(
                    f"unknown key method.{key}{closest(key, names)}; known: {', '.join(names)}"
                )
                continue
            rule = problem["msg"].removeprefix("Value error, ")
            rule = rule.replace("Input should be", "must be", 1)
            default = fields[str(problem["loc"][0])].default
            problems.append(
                f"method.{key} = {problem['input']!r} is not allowed: {rule} (default {default!r})"
            )
        raise ConfigError(" | ".join(problems)) from None
