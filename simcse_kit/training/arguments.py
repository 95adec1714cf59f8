"""transformers.TrainingArguments from the configuration of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.registry import closest
from simcse_kit.training.selection import SPEARMAN
from simcse_kit.training.state.output_dir import CHECKPOINTS
from simcse_kit.training.trainer_fields import check_trainer_keys, for_trainer

__all__ = ["RunArguments", "check_reporting", "training_arguments"]

CPU = torch.device("cpu")


@dataclass
class RunArguments(transformers.TrainingArguments):
    """Arguments of a trainer that uses one given device, and a rate for each layer.

    The base class takes the first GPU, and all of them if there are several.

    Attributes:
        chosen_device: the device.
        layer_decay: see :func:`~simcse_kit.training.layer_rates.scale_rates`; None for equal rates.
    """

    chosen_device: str = "cpu"
    layer_decay: float | None = None

    @cached_property
    def _setup_devices(self) -> torch.device:
        found: torch.device = super()._setup_devices
        device = torch.device(self.chosen_device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            self._n_gpu = 1
            assert self.distributed_state is not None
            # Used by accelerate, which would otherwise name no number.
            self.distributed_state.device = device
            return device
        return found


def training_arguments(
    config: RunConfig,
    folder: Path,
    steps: int,
    score_name: str | None,
    *,
    device: torch.device = CPU,
) -> transformers.TrainingArguments:
    """Combine the settings of the package with those of the table ``[trainer]``.

    Args:
        config: the configuration of the run.
        folder: the output folder; checkpoints go into a subfolder of it.
        steps: number of optimizer steps of the whole run.
        score_name: the metric that chooses the checkpoint; None if nothing is evaluated.
        device: the device of the run.

    Raises:
        ConfigError: a key of ``[trainer]`` cannot be given, or a value is not allowed.
        MissingExtraError: the package of ``training.report_to`` is not installed.
    """
    training = config.training
    check_trainer_keys(config.trainer, schedule=training.schedule)
    check_reporting(training.report_to)
    warmup = math.ceil(steps * training.warmup_ratio)
    settings: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": steps,
        "per_device_train_batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        # The schedule "constant" has no warmup.
        "lr_scheduler_type": "constant_with_warmup"
        if training.schedule == "constant" and warmup
        else training.schedule,
        "warmup_steps": warmup,
        "layer_decay": training.layer_decay,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "chosen_device": str(device),
        # Without a GPU, bf16 is allowed only if the CPU is requested explicitly.
        "use_cpu": device.type == "cpu",
        "bf16": training.precision == "bf16",
        "tf32": training.tf32 if device.type == "cuda" else None,
        # The filter reads the loss of every step, and an accelerator must not wait for that.
        "logging_nan_inf_filter": device.type == "cpu",
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
        # A last batch of few rows would have few negatives, a last batch of one row none.
        "dataloader_drop_last": True,
        # The default of transformers depends on the version of torch.
        "optim": "adamw_torch_fused",
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
        "accelerator_config": {"non_blocking": device.type == "cuda"},
    }
    try:
        return RunArguments(**(settings | for_trainer(config.trainer)))
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"[trainer] or training settings are not allowed: {reason}") from error


def check_reporting(names: Sequence[str]) -> None:
    """Refuse services of ``training.report_to`` that are unknown or whose package is missing.

    Raises:
        ConfigError: a service is unknown, or its package belongs to no extra of simcse-kit.
        MissingExtraError: the package of a service belongs to an extra.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = sorted(INTEGRATION_TO_CALLBACK)
            raise ConfigError(
                f"training.report_to has {name!r}{closest(name, known)}; known: {', '.join(known)}"
            )
        if name in ("tensorboard", "wandb") and find_spec(name) is None:
            raise MissingExtraError(f"training.report_to = [{name!r}]", name)
        if name not in get_available_reporting_integrations():  # type: ignore[no-untyped-call]
            raise ConfigError(
                f"training.report_to has {name!r}, whose package is not installed; install it, or "
                "leave it out"
            )
