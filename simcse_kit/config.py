"""Configuration of a training run: one typed object with a section for each table."""

from __future__ import annotations

from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator

from simcse_kit.registry import is_outside
from simcse_kit.utils.settings import lowest_and_highest, merge, nested, without_none
from simcse_kit.utils.sizes import parse_bytes

__all__ = [
    "SHORT_NAMES",
    "ConfigSection",
    "DataSection",
    "EvaluationSection",
    "LoraSection",
    "MethodSection",
    "ModelSection",
    "RunConfig",
    "TrainingSection",
    "named_settings",
]


class ConfigSection(BaseModel):
    """Base of configuration tables: immutable, strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LoraSection(ConfigSection):
    """A LoRA adapter of peft, which is trained in place of the weights of the transformer."""

    r: int = Field(8, ge=1, description="rank of the change of a weight")
    alpha: int = Field(16, ge=1, description="the change is scaled by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the input of the adapter")
    target_modules: str | list[str] | None = Field(
        None,
        description='names of linear layers, or "all-linear"; unset: what peft chooses for the '
        "architecture",
    )


class ModelSection(ConfigSection):
    """The encoder that training starts from."""

    name: str = Field("mini", description="bundled name, folder, or name on the Hugging Face Hub")
    pooling: str | None = Field(None, description="pooling that replaces the model's own")
    keep_layers: list[int] | None = Field(
        None, description="numbers of the layers to keep, such as [0, 2, 4]; unset: all layers"
    )
    lora: LoraSection | None = Field(
        None,
        description="train a LoRA adapter only: a table with r (8), alpha (16), dropout (0) and "
        "target_modules; unset: no adapter",
    )
    trust_remote_code: bool = Field(False, description="allow the model's own Python code to run")


class MethodSection(BaseModel):
    """The training method; the class of the method checks the other keys."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("simcse", description="one of `simcse methods`, or package.module:Class")

    @field_validator("name")
    @classmethod
    def _with_underscores(cls, value: str) -> str:
        """Spell ``margin-contrastive``, as earlier versions wrote it, with an underscore."""
        return value if is_outside(value) else value.replace("-", "_")

    @property
    def options(self) -> dict[str, Any]:
        """The keys of the table other than ``name``."""
        return dict(self.model_extra or {})


class DataSection(ConfigSection):
    """The training text."""

    train: list[str] = Field(
        default_factory=list,
        description="files, folders, addresses such as s3://bucket/a.csv, data sets of the Hub as "
        "hf:owner/name:split#columns",
    )
    weights: list[float] | None = Field(
        None,
        description="one weight for each entry of train: its share of the rows or batches of an "
        "epoch; unset: by number of rows, for round_robin equal",
    )
    sampling: Literal["proportional", "round_robin", "one_per_batch"] = Field(
        "proportional",
        description="proportional mixes the entries of train in each batch; round_robin and "
        "one_per_batch fill each batch from one entry, in turn or in random order",
    )
    no_duplicates: bool = Field(
        False, description="no batch contains a text twice as anchor or positive"
    )
    columns: list[str] | None = Field(
        None, description="names, or positions from 0, of anchor, positive, hard negatives"
    )
    label: str | None = Field(
        None, description="column with a number, by name or position: rows are two texts, label"
    )
    scale: list[float] | None = Field(
        None,
        description="lowest and highest possible score of a pair; unset: found from the scores",
    )
    stream: str | int | None = Field(
        None, description="read train shard by shard, with at most this on the disk, such as 20GB"
    )
    documents: int = Field(
        0,
        ge=0,
        description="text files contain documents, each followed by a blank line: a row is a "
        "sentence and this many next ones; 0: no documents",
    )
    prompts: str | dict[str, str] | None = Field(
        None,
        description="text in front of every text, or by column: "
        '{query = "query: ", pos = "passage: "}; it is saved with the encoder',
    )
    on_bad_row: Literal["error", "skip"] = Field("error", description="stop, or skip and count")
    augment: str | list[str] | None = Field(
        None,
        description="chain of augmentations, such as delete(0.1)|reorder(2), for the positives of "
        "single sentences, or for all texts of other data; a list contains one for each view",
    )
    max_length: int = Field(32, ge=3, description="maximum tokens per sentence in training")
    allow_unknown: bool = Field(
        False, description="train even if the vocabulary of the model lacks most tokens"
    )

    @field_validator("weights")
    @classmethod
    def _are_positive(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not all(weight > 0 for weight in value):
            raise ValueError("must be numbers greater than 0, such as [2.0, 1.0]")
        return value

    @field_validator("columns", "label", mode="before")
    @classmethod
    def _positions_as_text(cls, value: Any) -> Any:
        """Convert positions to text, because ``--set data.label=2`` gives a number."""
        if isinstance(value, list):
            return [cls._positions_as_text(item) for item in value]
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("scale", mode="before")
    @classmethod
    def _two_numbers(cls, value: Any) -> Any:
        """Convert ``0,5``, as ``--scale`` gives it, to a list, and check the order."""
        return None if value is None else list(lowest_and_highest(value))


class EvaluationSection(ConfigSection):
    """The choice of the best checkpoint, and the monitoring of collapse."""

    dev: str | None = Field(
        None, description="folder with STS-B, or file of score, sentence, sentence"
    )
    select: Literal["dev", "loss", "alignment_uniformity", "both"] | None = Field(
        None,
        description="what chooses the checkpoint: Spearman on the dev set (default with one); "
        "of held-out rows the loss (default without), alignment + uniformity, or all three",
    )
    every: int = Field(125, ge=1, description="steps between evaluations")
    held_out: int = Field(
        512, ge=0, description="rows held out for the dev loss without a dev set; 0: none"
    )
    trace_every: int = Field(
        50,
        ge=0,
        description="steps between measurements of alignment, uniformity and rank on a fixed "
        "sample; 0: no measurements, and no detection of a collapse",
    )
    on_collapse: Literal["warn", "stop", "rollback"] = Field(
        "warn",
        description="when the embeddings collapse: log the cause, also stop, or return to the last "
        "good checkpoint with half the learning rate",
    )


class TrainingSection(ConfigSection):
    """The optimisation and its output folder."""

    output: str = Field("simcse-output", description="folder for the encoder, curves and logs")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    max_steps: int | None = Field(None, ge=1, description="number of steps, in place of epochs")
    batch_size: int = Field(64, ge=1, description="rows per step; the other rows are negatives")
    learning_rate: float = Field(3e-5, gt=0, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after warmup")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps with warmup")
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer to the one below; unset: 1",
    )
    freeze: list[str] = Field(
        default_factory=list,
        description='parts that are not trained, such as ["embeddings", "layers.0-5"]',
    )
    weight_decay: float = Field(0.0, ge=0, description="for all but biases and LayerNorm (AdamW)")
    max_grad_norm: float = Field(1.0, gt=0, description="larger gradients are scaled to this norm")
    seed: int = Field(42, ge=0, description="seed of new weights, shuffling and dropout")
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many evaluations without a better score; unset: never",
    )
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    device: str = Field(
        "auto",
        description="cpu, cuda, cuda:N or mps; auto takes CUDA, else MPS, else the CPU",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="bf16 uses autocast; auto takes bf16 on a CUDA GPU that has it, else fp32",
    )
    tf32: bool = Field(
        False, description="multiply fp32 matrices with 10-bit mantissas (TF32); for CUDA GPUs"
    )
    compile: bool = Field(
        False, description="compile what follows attention in each layer (torch.compile); for GPUs"
    )
    memory_budget: str | int | None = Field(
        None, description="such as 4GB: larger batches are embedded in chunks that fit into it"
    )
    chunk_tokens: int | None = Field(
        None, ge=1, description="embed every batch in chunks of this many tokens"
    )
    deterministic: bool = Field(False, description="allow only deterministic operators; for GPUs")
    merge_adapter: bool = Field(
        False,
        description="with model.lora, also save the model with the adapter merged, in `merged`",
    )
    report_to: list[str] = Field(
        default_factory=list, description="services such as tensorboard or wandb, if installed"
    )

    @field_validator("memory_budget", mode="before")
    @classmethod
    def _is_size(cls, value: Any) -> Any:
        if value is not None:
            parse_bytes(value)
        return value


class RunConfig(ConfigSection):
    """The configuration of a training run.

    Examples:
        >>> config = RunConfig(training=TrainingSection(batch_size=32, seed=1))
        >>> config.training.batch_size, config.method.name
        (32, 'simcse')
    """

    model: ModelSection = ModelSection()
    method: MethodSection = MethodSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="further fields of transformers.TrainingArguments"
    )

    def to_toml(self) -> str:
        """Write the configuration as TOML, which reads back to an equal one."""
        tables = without_none(self.model_dump())
        if "name" not in self.method.model_fields_set:
            del tables["method"]["name"]  # the data may still choose another
        return tomli_w.dumps(tables)


SHORT_NAMES = {
    "train": "data.train",
    "model": "model.name",
    "pooling": "model.pooling",
    "method": "method.name",
    "teachers": "method.teachers",
    "objective": "method.objective",
    "temperature": "method.temperature",
    "output": "training.output",
    "dev": "evaluation.dev",
    "epochs": "training.epochs",
    "max_steps": "training.max_steps",
    "batch_size": "training.batch_size",
    "memory_budget": "training.memory_budget",
    "patience": "training.patience",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
    "deterministic": "training.deterministic",
    "merge": "training.merge_adapter",
    "device": "training.device",
    "precision": "training.precision",
    "tf32": "training.tf32",
    "augment": "data.augment",
    "max_length": "data.max_length",
    "columns": "data.columns",
    "label": "data.label",
    "scale": "data.scale",
    "on_bad_row": "data.on_bad_row",
    "allow_unknown": "data.allow_unknown",
    "on_collapse": "evaluation.on_collapse",
}
"""Argument of ``simcse_kit.train``, or option of a command -> key of the configuration."""


def named_settings(**given: Any) -> dict[str, Any]:
    """Nest values with the names of :data:`SHORT_NAMES` into tables; None is left out."""
    tables: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            tables = merge(tables, nested(SHORT_NAMES[name], value))
    return tables
