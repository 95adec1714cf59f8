"""The configuration of a training run: one typed object, filled from presets, TOML and flags.

Later sources win: defaults, then ``--preset``, then ``--config run.toml``, then ``--set`` and the
named flags. Unknown keys are refused. The resolved configuration is written before the first step.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest
from simcse_kit.utils.sizes import parse_bytes

__all__ = [
    "DataSection",
    "EvaluationSection",
    "MethodSection",
    "ModelSection",
    "RunConfig",
    "Section",
    "TrainingSection",
    "load_config",
    "merge",
    "parse_setting",
    "preset_path",
    "presets",
    "read_toml",
    "validated",
]

PRESET_FOLDER = Path(__file__).resolve().parent / "presets"


class Section(BaseModel):
    """Base of configuration tables: strict about keys and types, fixed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """The encoder that training starts from."""

    name: str = Field("mini", description="embedded name, folder, or name on the Hugging Face Hub")
    pooling: str | None = Field(None, description="in place of the model's own pooling recipe")
    trust_remote_code: bool = Field(False, description="allow the model's own Python code to run")


class MethodSection(BaseModel):
    """The training method; its other keys are checked by the method itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("simcse", description="one of `simcse methods`")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the method."""
        return dict(self.model_extra or {})


class DataSection(Section):
    """The training text."""

    train: list[str] = Field(default_factory=list, description="files and folders")
    columns: list[str] | None = Field(
        None, description="names, or positions from 0, of anchor, positive, hard negatives"
    )
    label: str | None = Field(
        None, description="column with a number, by name or position: rows are two texts, label"
    )
    documents: int = Field(
        0,
        ge=0,
        description="txt files hold documents, a blank line after each: a row is a sentence and so "
        "many next ones",
    )
    on_bad_row: Literal["error", "skip"] = Field("error", description="stop, or skip and count")
    augment: str | list[str] | None = Field(
        None,
        description="chain of augmentations, such as delete(0.1)|reorder(2), for the positives of "
        "single sentences, else for all texts; a list has one for each view",
    )
    max_length: int = Field(32, ge=3, description="tokens of a sentence in training")
    allow_unknown: bool = Field(
        False, description="train on text that the model's vocabulary mostly does not have"
    )

    @field_validator("columns", "label", mode="before")
    @classmethod
    def _positions_as_text(cls, value: Any) -> Any:
        """``--set data.label=2`` is read as a number."""
        if isinstance(value, list):
            return [cls._positions_as_text(item) for item in value]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class EvaluationSection(Section):
    """How the best checkpoint is chosen while training."""

    dev: str | None = Field(
        None, description="folder with STS-B, or file of score, sentence, sentence; none: held out"
    )
    select: Literal["dev", "loss", "alignment_uniformity", "both"] | None = Field(
        None,
        description="what chooses the checkpoint: Spearman on the dev set (default with one); of "
        "held-out rows the loss (the default without), alignment + uniformity, or all three",
    )
    every: int = Field(125, ge=1, description="steps between evaluations")
    held_out: int = Field(
        512, ge=0, description="rows kept back for the dev loss where there is no dev set; 0: none"
    )
    trace_every: int = Field(
        50,
        ge=0,
        description="steps between measurements of alignment, uniformity and rank on a fixed "
        "sample of the dev set or of the held-out rows; 0: none, and no watch for collapse",
    )
    on_collapse: Literal["warn", "stop", "rollback"] = Field(
        "warn",
        description="say why, also stop, or go back to the last good checkpoint with half the "
        "learning rate",
    )


class TrainingSection(Section):
    """The optimisation."""

    output: str = Field("simcse-output", description="folder for the encoder, curves and logs")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, description="stop after so many steps")
    batch_size: int = Field(64, ge=1, description="rows a step, which sets the in-batch negatives")
    learning_rate: float = Field(3e-5, gt=0, description="peak of the schedule")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after warmup")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps spent warming up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, not on biases and LayerNorm")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    seed: int = Field(42, ge=0, description="of weights, shuffling and dropout")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 is autocast")
    memory_budget: str | int | None = Field(
        None, description="such as 4GB: larger batches are embedded in chunks that fit into it"
    )
    chunk_tokens: int | None = Field(
        None, ge=1, description="embed every batch in chunks of so many tokens"
    )
    deterministic: bool = Field(
        False, description="refuse operators without a deterministic form; for GPUs (see README)"
    )
    report_to: list[str] = Field(
        default_factory=list, description="tensorboard, wandb, ... (their packages installed)"
    )

    @field_validator("memory_budget", mode="before")
    @classmethod
    def _is_size(cls, value: Any) -> Any:
        if value is not None:
            parse_bytes(value)
        return value


class RunConfig(Section):
    """All of a training run."""

    model: ModelSection = ModelSection()
    method: MethodSection = MethodSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="passed as it is to transformers.TrainingArguments"
    )

    def to_toml(self) -> str:
        """The configuration as TOML, which reads back to an equal one."""
        return tomli_w.dumps(_without_none(self.model_dump()))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.toml"))


def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    path = PRESET_FOLDER / f"{name}.toml"
    if name not in presets():
        raise ConfigError(
            f"unknown preset {name!r}{closest(name, presets())}; known: {', '.join(presets())}"
        )
    return path


def load_config(
    *,
    preset: str | None = None,
    file: str | Path | None = None,
    overrides: Iterable[Mapping[str, Any]] = (),
) -> RunConfig:
    """Resolve a run's configuration.

    Args:
        preset: name of a packaged preset.
        file: a TOML file, over the preset.
        overrides: nested tables, over both, the last one on top.

    Raises:
        ConfigError: a file is missing or no TOML, a key is unknown, a value is not allowed, or
            the file alone would let code of a model run.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    overrides = list(overrides)
    if preset is not None:
        layers.append((f"preset {preset}", read_toml(preset_path(preset))))
    if file is not None:
        layers.append((str(file), read_toml(Path(file))))
        _check_no_grant(layers[-1][1], str(file), overrides)
    layers += [("command line", table) for table in overrides]
    merged: dict[str, Any] = {}
    for where, table in layers:
        # Every key has a default, so each source is checked by itself and named in the error.
        validated(RunConfig, table, where=where)
        merged = merge(merged, table)
    config: RunConfig = validated(RunConfig, merged, where="the configuration")
    return config


def _check_no_grant(
    table: Mapping[str, Any], file: str, overrides: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse a file that lets a model's own code run, unless the command line does so too."""

    def grants(layer: Mapping[str, Any]) -> bool:
        model = layer.get("model")
        return isinstance(model, Mapping) and bool(model.get("trust_remote_code"))

    if grants(table) and not any(map(grants, overrides)):
        raise ConfigError(
            f"{file}: model.trust_remote_code = true lets Python code of the model run, which a "
            "file cannot allow; if you trust that code, add --set model.trust_remote_code=true"
        )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables merged key by key; lists and values are replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def parse_setting(text: str) -> dict[str, Any]:
    """``"method.temperature=0.1"`` as a nested table; the value is read as TOML, else as text.

    Raises:
        ConfigError: there is no ``=`` or no key.
    """
    key, equals, raw = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts) or len(parts) < 2:
        raise ConfigError(f"--set {text!r} is not table.key=value, such as method.temperature=0.1")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = raw.strip()
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def validated(model: type[Any], values: Mapping[str, Any], *, where: str, prefix: str = "") -> Any:
    """Make a configuration object, with pydantic's findings said in one line.

    Args:
        model: the pydantic class.
        values: what was given.
        where: the source to name in the message.
        prefix: table that the keys belong to, such as ``"method"``.

    Raises:
        ConfigError: the first thing that is wrong: key, value, what is allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key = ".".join([prefix, *parts] if prefix else parts)
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, parts[:-1])
            hint = closest(parts[-1], known)
            message = f"unknown key {key!r}{hint}; known: {', '.join(known)}"
        elif first["type"] == "model_type":
            message = f"{key} is {first['input']!r}: it must be a table, [{key}]"
        else:
            reason = first["msg"].removeprefix("Value error, ")
            message = f"{key} is {first['input']!r}: {reason[0].lower()}{reason[1:]}"
        raise ConfigError(f"{where}: {message}") from None


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(model.model_fields)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested tables.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"configuration file {path} cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep for TOML to be read") from None
