"""Bodies of requests: their fields, checks and schemas."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

__all__ = ["EmbeddingsRequest", "SearchRequest", "SimilarityRequest", "Texts"]

_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_MOST_HITS = 1000


def _is_token(value: Any) -> bool:
    return type(value) is int


def _checked_input(value: Any) -> list[Any]:
    """Return the input of a request as a list of texts, or of token ids of texts."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f"it is {_kind(value)}, not a string, a list of strings or token ids")
    if not value:
        raise ValueError("it is empty; give at least one text")
    if type(value[0]) is int:
        value = [value]
    texts = isinstance(value[0], str)
    for number, item in enumerate(value):
        if texts and isinstance(item, str):
            if not item:
                raise ValueError(f"text {number} is empty; leave it out")
        elif texts:
            raise ValueError(f"item {number} is {_kind(item)}, not a string")
        elif not isinstance(item, list):
            raise ValueError(f"item {number} is {_kind(item)}, not a string or a list of token ids")
        elif not item:
            raise ValueError(f"item {number} has no token ids; leave it out")
        elif not all(map(_is_token, item)):
            wrong = next(token for token in item if not _is_token(token))
            raise ValueError(f"item {number} holds {_kind(wrong)}, not only token ids")
    return list(value)


def _kind(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _not_blank(texts: list[str]) -> list[str]:
    for number, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"text {number} is blank")
    return texts


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Input: TypeAlias = Annotated[
    Any,
    AfterValidator(_checked_input),
    WithJsonSchema(
        {
            "anyOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1},
                _IDS,
                {"type": "array", "items": _IDS, "minItems": 1},
            ]
        }
    ),
]
Texts: TypeAlias = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)
]


class _Request(BaseModel):
    # Clients of OpenAI's API send fields that have no meaning here, such as "user".
    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())


class EmbeddingsRequest(_Request):
    """Compute the vectors of texts."""

    input: Input
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class SimilarityRequest(_Request):
    """Compute the cosines of all pairs of ``texts``, or of ``texts`` with ``others``."""

    texts: Texts
    others: Texts | None = None


class SearchRequest(_Request):
    """Find the nearest texts of the index."""

    query: Annotated[Texts, AfterValidator(_not_blank)]
    top_k: Annotated[int, Field(ge=1, le=_MOST_HITS)] = 5
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    hybrid: bool = False
    filter: str | None = None
