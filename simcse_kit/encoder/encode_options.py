"""Options of encoding, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, TypedDict, get_args

import numpy as np

from simcse_kit.encoder.inputs import whole_number
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.quantization.layer_cache import Precision, check_precision
from simcse_kit.encoder.tokenization import check_length
from simcse_kit.errors import ConfigError

__all__ = ["EncodeKeywords", "EncodeOptions", "check_size"]


@dataclass(frozen=True)
class EncodeOptions:
    """How sentences become vectors.

    Attributes:
        batch_size: Maximum number of sentences per forward pass; None for no maximum other
            than the token budget.
        token_budget: Maximum number of tokens per forward pass, padding included where there is
            any; None for one that suits the device.
        normalize: Whether vectors are scaled to unit length; None for the encoder's own setting.
        max_length: Maximum number of tokens per sentence; None for the encoder's own.
        precision: Number format of the computation.
        progress: Whether a progress bar is shown on a terminal or in a notebook.

    Raises:
        ConfigError: A value is not allowed.
    """

    batch_size: int | None = None
    token_budget: int | None = None
    normalize: bool | None = None
    max_length: int | None = None
    precision: Precision = "fp32"
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "token_budget"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        for name in ("normalize", "progress"):
            value = getattr(self, name)
            if not (isinstance(value, bool | np.bool_ | NoneType) or whole_number(value) in (0, 1)):
                raise ConfigError(f"encode({name}={value!r}); give True or False")
        if not isinstance(self.precision, str) or self.precision not in get_args(Precision):
            allowed = ", ".join(map(repr, get_args(Precision)))
            raise ConfigError(f"precision is {self.precision!r}; allowed: {allowed}")

    def for_model(self, model: EncoderModel) -> EncodeOptions:
        """Check the options against a model and fill in its defaults.

        Raises:
            ConfigError: The length is not allowed, or the model, its device or torch does not
                support the precision.
        """
        check_precision(model, self.precision)
        length = model.max_length
        if self.max_length is not None:
            length = check_length(self.max_length, model.tokenization.positions)
        normalize = model.normalize if self.normalize is None else self.normalize
        return replace(self, max_length=length, normalize=bool(normalize))


class EncodeKeywords(TypedDict, total=False):
    """The keyword arguments of ``encode`` that become :class:`EncodeOptions`."""

    batch_size: int | None
    token_budget: int | None
    normalize: bool | None
    max_length: int | None
    precision: Precision
    progress: bool


def check_size(name: str, value: Any) -> None:
    """Refuse a value that is not a positive integer.

    Args:
        name: Name of the argument of ``encode``.
        value: Its value.

    Raises:
        ConfigError: The value is not an integer of at least 1.
    """
    if (whole_number(value) or 0) < 1:
        raise ConfigError(f"encode({name}={value!r}); it must be an integer of at least 1")
