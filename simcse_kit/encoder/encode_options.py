"""Options of encoding, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, TypedDict, get_args

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder.inputs import whole_number
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.prompts import check_prompt, chosen_prompt
from simcse_kit.encoder.quantization.layer_cache import Precision, check_precision
from simcse_kit.encoder.tokenization import check_length
from simcse_kit.errors import ConfigError

__all__ = ["EncodeKeywords", "EncodeOptions", "check_dimensions", "check_size"]


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
        truncate_dim: Number of first dimensions that are kept; None for all.
        prompt: Text put in front of every sentence; None for the prompt that ``prompt_name``
            names, or else the encoder's default.
        prompt_name: Name of one of the encoder's prompts.
        precision: Number format of the computation.
        progress: Whether a progress bar is shown on a terminal or in a notebook.

    Raises:
        ConfigError: A value is not allowed.
    """

    batch_size: int | None = None
    token_budget: int | None = None
    normalize: bool | None = None
    max_length: int | None = None
    truncate_dim: int | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    precision: Precision = "fp32"
    progress: bool = False
    _unit_before: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "token_budget", "truncate_dim"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        for name in ("normalize", "progress"):
            value = getattr(self, name)
            if not (isinstance(value, bool | np.bool_ | NoneType) or whole_number(value) in (0, 1)):
                raise ConfigError(f"encode({name}={value!r}); give True or False")
        if not isinstance(self.precision, str) or self.precision not in get_args(Precision):
            allowed = ", ".join(map(repr, get_args(Precision)))
            raise ConfigError(f"precision is {self.precision!r}; allowed: {allowed}")
        check_prompt(self.prompt, self.prompt_name)

    def for_model(self, model: EncoderModel) -> EncodeOptions:
        """Check the options against a model and fill in its defaults.

        Raises:
            ConfigError: The length is not allowed, there is no prompt of this name, the vectors
                have fewer dimensions than wanted, or the model, its device or torch does not
                support the precision.
            ModelError: The model leaves the prompt out and cannot do so.
        """
        check_precision(model, self.precision)
        length = model.max_length
        if self.max_length is not None:
            length = check_length(self.max_length, model.tokenization.positions)
        check_dimensions(self.truncate_dim, model.embedding_dim)
        prompt = chosen_prompt(model, self.prompt, self.prompt_name)
        model.unpooled(prompt)
        normalize = model.normalize if self.normalize is None else self.normalize
        # The own Normalize module of an encoder comes before the truncation.
        before = self.normalize is None and model.normalize and self.truncate_dim is not None
        return replace(
            self,
            max_length=length,
            normalize=bool(normalize) and not before,
            prompt=prompt,
            prompt_name=None,
            _unit_before=before or self._unit_before,
        )

    def dimensions(self, model: EncoderModel) -> int:
        """Return the number of dimensions of the vectors."""
        return model.embedding_dim if self.truncate_dim is None else self.truncate_dim

    def finished(self, vectors: Tensor) -> Tensor:
        """Truncate and normalise ``(n, embedding_dim)`` vectors."""
        if self.truncate_dim is not None:
            vectors = unit_length(vectors, dim=1) if self._unit_before else vectors
            vectors = vectors[:, : self.truncate_dim].contiguous()
        return unit_length(vectors, dim=1) if self.normalize else vectors


class EncodeKeywords(TypedDict, total=False):
    """The keyword arguments of ``encode`` that become :class:`EncodeOptions`."""

    batch_size: int | None
    token_budget: int | None
    normalize: bool | None
    max_length: int | None
    truncate_dim: int | None
    prompt: str | None
    prompt_name: str | None
    precision: Precision
    progress: bool


def check_dimensions(wanted: int | None, available: int) -> None:
    """Refuse to keep more dimensions than vectors have.

    Raises:
        ConfigError: ``wanted`` is larger than ``available``.
    """
    if wanted is not None and wanted > available:
        raise ConfigError(
            f"{wanted} dimensions are wanted, and the vectors of this encoder have {available}; "
            f"allowed: 1 to {available}"
        )


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
