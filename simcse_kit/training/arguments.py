"""From the configuration to transformers.TrainingArguments."""

from __future__ import annotations

import dataclasses
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.registry import closest
from simcse_kit.training.folder import CHECKPOINTS
from simcse_kit.training.scoring import SPEARMAN

__all__ = ["accumulation_steps", "training_arguments"]

# Given under [trainer] these would contradict what is logged, scored and resumed.
_OURS = {
    "auto_find_batch_size": "training.batch_size",
    "bf16": "training.precision",
    "eval_steps": "evaluation.every",
    "eval_strategy": "evaluation.dev and evaluation.held_out",
    "greater_is_better": "evaluation.dev",
    "learning_rate": "training.learning_rate",
    "load_best_model_at_end": "evaluation.dev and evaluation.held_out",
    "logging_steps": "training.log_every",
    "lr_scheduler_type": "training.schedule",
    "max_grad_norm": "training.max_grad_norm",
    "max_steps": "training.max_steps",
    "metric_for_best_model": "evaluation.dev",
    "num_train_epochs": "training.epochs",
    "output_dir": "training.output",
    "per_device_train_batch_size": "training.batch_size",
    "report_to": "training.report_to",
    "save_steps": "evaluation.every",
    "save_strategy": "evaluation.every",
    "seed": "training.seed",
    "warmup_ratio": "training.warmup_ratio",
    "warmup_steps": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
}


def accumulation_steps(config: RunConfig) -> int:
    """Batches to one optimizer step, from ``trainer.gradient_accumulation_steps``.

    Raises:
        ConfigError: it is no whole number from 1.
    """
    value = config.trainer.get("gradient_accumulation_steps", 1)
    if type(value) is not int or value < 1:
        raise ConfigError(
            f"trainer.gradient_accumulation_steps is {value!r}; it must be a whole number from 1"
        )
    return value


def training_arguments(
    config: RunConfig, folder: Path, steps: int, score_name: str | None
) -> transformers.TrainingArguments:
    """The trainer's arguments: ours, and those of the table ``[trainer]``.

    Args:
        config: the run.
        folder: the output folder; checkpoints go into a folder in it.
        steps: optimizer steps of the whole run.
        score_name: the metric that chooses the checkpoint; None where nothing is evaluated.

    Raises:
        ConfigError: a key of ``[trainer]`` is unknown or ours, or a value is not allowed.
        MissingExtraError: the package of ``training.report_to`` is not installed.
    """
    training = config.training
    _check_keys(config.trainer)
    _check_reporting(training.report_to)
    settings: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": steps,
        "per_device_train_batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": math.ceil(steps * training.warmup_ratio),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        # Without a GPU bf16 is allowed only where the CPU is asked for.
        "use_cpu": not torch.accelerator.is_available(),
        "bf16": training.precision == "bf16",
        "logging_steps": training.log_every,
        "logging_first_step": True,
        "report_to": training.report_to or "none",
        "eval_strategy": "no" if score_name is None else "steps",
        "eval_steps": config.evaluation.every,
        "save_strategy": "steps",
        "save_steps": config.evaluation.every,
        "save_total_limit": 2,
        "load_best_model_at_end": score_name is not None,
        "metric_for_best_model": score_name,
        "greater_is_better": score_name == SPEARMAN,
        # A last batch of few rows has few negatives, a last batch of one has none.
        "dataloader_drop_last": True,
        # The default only from torch 2.8 on.
        "optim": "adamw_torch_fused",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    try:
        return transformers.TrainingArguments(**(settings | config.trainer))
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"[trainer] or training settings are not allowed: {reason}") from error


def _check_keys(table: dict[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(transformers.TrainingArguments)]
    for key in table:
        if key in _OURS:
            raise ConfigError(f"trainer.{key} cannot be given; use {_OURS[key]}")
        if key not in known:
            raise ConfigError(
                f"unknown key trainer.{key}{closest(key, known)}; [trainer] takes the fields of "
                "transformers.TrainingArguments"
            )


def _check_reporting(names: list[str]) -> None:
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = sorted(INTEGRATION_TO_CALLBACK)
            raise ConfigError(
                f"training.report_to has {name!r}{closest(name, known)}; known: {', '.join(known)}"
            )
        if name in ("tensorboard", "wandb") and find_spec(name) is None:
            raise MissingExtraError(f"training.report_to = [{name!r}]", name)
