"""Measured rates of devices, and the shapes of encoders that they belong to."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import prod
from pathlib import Path

from simcse_kit.errors import ConfigError, ModelError

__all__ = [
    "RATED",
    "Rate",
    "Rates",
    "Shape",
    "check_device",
    "devices",
    "measured_rates",
    "shape_of",
]

RATED = ("tokenize", "encode", "dedupe", "dedupe-near", "search", "train")
"""Kinds of work that have a rate."""

# Names of the three sizes in the configurations of different families.
_LAYERS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
_HIDDEN = ("hidden_size", "dim", "d_model", "n_embd")
_INNER = ("intermediate_size", "hidden_dim", "d_ff", "n_inner")


@dataclass(frozen=True)
class Rate:
    """The speed of one kind of work on one CPU core or one GPU.

    Attributes:
        step: One of :data:`RATED`.
        device: Name of the device.
        per_second: Sentences per second; of ``search``, floating-point operations per second.
        source: Where the rate was measured.
        shape: :attr:`Shape.key` of the encoder; empty if the rate does not depend on the encoder.
        tokens: Mean number of tokens of a sentence in the measurement; 0 if it does not matter.
        bytes: Mean number of bytes of a sentence in the measurement; 0 if it does not matter.
    """

    step: str
    device: str
    per_second: float
    source: str
    shape: str = ""
    tokens: float = 0.0
    bytes: float = 0.0

    def seconds(self, sentences: float, tokens: float, size: float) -> float:
        """Compute the time that sentences of other lengths take on one device.

        Args:
            sentences: Number of sentences.
            tokens: Mean number of tokens of a sentence.
            size: Mean number of bytes of a sentence.

        Returns:
            Seconds.
        """
        scale = tokens / self.tokens if self.tokens else size / self.bytes if self.bytes else 1.0
        return sentences * scale / self.per_second


@dataclass(frozen=True)
class Shape:
    """The sizes of an encoder.

    Attributes:
        key: Layers x hidden size x intermediate size, such as ``6x384x1536``.
        dim: Number of dimensions of a vector.
        parameters: Number of parameters.
    """

    key: str
    dim: int
    parameters: int


class Rates:
    """Rates by kind of work, device and shape of encoder; later ones replace earlier ones.

    Args:
        rates: The rates.
    """

    def __init__(self, rates: Iterable[Rate]):
        self._found = {(rate.step, rate.device, rate.shape): rate for rate in rates}

    def find(self, step: str, device: str, shape: str) -> Rate | None:
        """Return the rate of an encoder, or one for every encoder, or None if there is none."""
        return self._found.get((step, device, shape)) or self._found.get((step, device, ""))

    def replaced(self, rates: Sequence[Rate]) -> Rates:
        """Return these rates with others added, which replace those of the same kind."""
        steps = {(rate.step, rate.device) for rate in rates}
        kept = (rate for key, rate in self._found.items() if key[:2] not in steps)
        return Rates([*kept, *(replace(rate, shape="") for rate in rates)])


@cache
def _table() -> dict[str, object]:
    return tomllib.loads(files(__package__).joinpath("rates.toml").read_text(encoding="utf-8"))


def devices() -> dict[str, str]:
    """Return the descriptions of all known devices by their names.

    Examples:
        >>> devices()["H100"]
        'NVIDIA H100 80GB'
    """
    return dict(_table()["devices"])  # type: ignore[call-overload, no-any-return]


def measured_rates() -> Rates:
    """Return the rates of the table ``rates.toml``.

    Examples:
        >>> measured_rates().find("encode", "cpu", "6x384x1536").per_second
        159.5
        >>> measured_rates().find("encode", "A100", "6x384x1536") is None
        True
    """
    return Rates(Rate(**entry) for entry in _table()["rate"])  # type: ignore[attr-defined]


def shape_of(folder: Path) -> Shape:
    """Read the sizes of an encoder from its folder, without loading it.

    Args:
        folder: A model folder with config.json.

    Raises:
        ModelError: The folder has no configuration with these sizes, or damaged weights.

    Examples:
        >>> from simcse_kit.encoder.folder.resolve import resolve_model
        >>> shape_of(resolve_model("mini")).key
        '4x256x1024'
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        layers, hidden, inner = (
            next(int(config[name]) for name in names if name in config)
            for names in (_LAYERS, _HIDDEN, _INNER)
        )
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{folder} has no config.json with the number of layers and the hidden and "
            "intermediate sizes; a plan needs a transformer"
        ) from error
    return Shape(f"{layers}x{hidden}x{inner}", hidden, _parameters(folder))


def _parameters(folder: Path) -> int:
    """Count the parameters in the headers of the weight files of a folder."""
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, "numpy") as weights:
                count += sum(prod(weights.get_slice(key).get_shape()) for key in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{file} cannot be read ({error}); copy the model again") from None
    return count


def check_device(name: str) -> None:
    """Check that the device is known.

    Raises:
        ConfigError: It is not.
    """
    if name not in devices():
        raise ConfigError(f"device {name!r} is not known; allowed: {', '.join(devices())}")
