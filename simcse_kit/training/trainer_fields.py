"""Fields of transformers.TrainingArguments: allowed, set by other settings, or refused.

Every field of the supported releases is in one of the three tables.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import transformers
from pydantic import Field

from simcse_kit.config import ConfigSection
from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest
from simcse_kit.utils.settings import validated

__all__ = ["OURS", "RECOMPUTE", "REFUSED", "AllowedKeys", "check_trainer_keys", "for_trainer"]


class AllowedKeys(ConfigSection):
    """The fields that ``[trainer]`` passes on, with their allowed values."""

    lr_scheduler_kwargs: dict[str, float | int] | None = None
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "adagrad", "rmsprop", "sgd"] = (
        "adamw_torch_fused"
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    gradient_accumulation_steps: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    activation_checkpointing: bool = False
    fp16: bool = False
    torch_empty_cache_steps: int | None = Field(None, ge=1)
    log_level: Literal["debug", "info", "warning", "error", "critical", "passive"] = "passive"
    run_name: str | None = None
    save_total_limit: int | None = Field(2, ge=1)
    use_cpu: bool = False
    dataloader_num_workers: int = Field(0, ge=0)
    dataloader_pin_memory: bool = True
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = Field(None, ge=1)


RECOMPUTE = ("gradient_checkpointing", "activation_checkpointing")
"""Two names of one setting; :mod:`simcse_kit.training.batching.recompute` applies it."""

OURS = {
    "auto_find_batch_size": "training.batch_size and training.memory_budget",
    "bf16": "training.precision",
    "data_seed": "training.seed",
    "dataloader_drop_last": "training.batch_size (a last batch of fewer rows is left out)",
    "disable_tqdm": "simcse --quiet",
    "eval_delay": "evaluation.every",
    "eval_on_start": "evaluation.every (the start is always evaluated)",
    "eval_steps": "evaluation.every",
    "eval_strategy": "evaluation.dev and evaluation.held_out",
    "full_determinism": "training.deterministic",
    "greater_is_better": "evaluation.select",
    "learning_rate": "training.learning_rate",
    "load_best_model_at_end": "evaluation.dev and evaluation.held_out",
    "logging_first_step": "training.log_every",
    "logging_steps": "training.log_every",
    "logging_strategy": "training.log_every",
    "lr_scheduler_type": "training.schedule",
    "max_grad_norm": "training.max_grad_norm",
    "max_steps": "training.max_steps",
    "metric_for_best_model": "evaluation.select",
    "num_train_epochs": "training.epochs",
    "output_dir": "training.output",
    "per_device_eval_batch_size": "training.batch_size",
    "per_device_train_batch_size": "training.batch_size",
    "report_to": "training.report_to",
    "resume_from_checkpoint": "--resume",
    "save_steps": "evaluation.every",
    "save_strategy": "evaluation.every",
    "seed": "training.seed",
    "tf32": "training.tf32",
    "warmup_ratio": "training.warmup_ratio",
    "warmup_steps": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
}
"""Field -> the settings of this package that determine it."""

_REASONS = {
    "nothing is uploaded by training; upload the finished folder yourself": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push "
        "hub_revision trackio_space_id trackio_bucket_id trackio_static_space_id"
    ),
    "processes share each batch in a special way, so that every anchor meets all negatives; "
    "start them with torchrun": (
        "accelerator_config parallelism_config fsdp fsdp_config deepspeed "
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph "
        "ddp_backend ddp_timeout local_rank log_on_each_node log_level_replica "
        "save_on_each_node average_tokens_across_devices"
    ),
    "it acts on the outputs or the embeddings of a transformers model with labels, and a method "
    "is no such model": (
        "label_smoothing_factor neftune_noise_alpha use_liger_kernel liger_kernel_config "
        "label_names use_cache"
    ),
    "the trainer does not do the evaluation, so it has no effect": (
        "bf16_full_eval fp16_full_eval prediction_loss_only eval_do_concat_batches "
        "eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics "
        "do_train do_eval do_predict"
    ),
    "the order of the rows is a function of training.seed alone": (
        "train_sampling_strategy group_by_length length_column_name dataloader_in_order "
        "ignore_data_skip"
    ),
    "a resumed run would differ from an uninterrupted one": (
        "save_only_model restore_callback_states_from_checkpoint enable_jit_checkpoint "
        "include_num_input_tokens_seen"
    ),
    "packed layers cannot be compiled": ("torch_compile torch_compile_backend torch_compile_mode"),
    "the layers are recomputed as transformers does by default; give "
    "trainer.activation_checkpointing = true alone": (
        "gradient_checkpointing_kwargs activation_checkpointing_kwargs"
    ),
    "a loss that is not finite stops the run": ("logging_nan_inf_filter"),
    "no allowed optimizer takes arguments other than those with their own keys": (
        "optim_args optim_target_modules"
    ),
    "data-loader workers are forked, with the tokenizer of the run": (
        "dataloader_multiprocessing_context"
    ),
    "a row has no unused columns": ("remove_unused_columns"),
    "it is for developers of the trainer": ("debug skip_memory_metrics"),
    "it belongs to a service that is not used in training": ("project"),
    "the library has removed it, or will soon": (
        "fp16_backend fp16_opt_level half_precision_backend jit_mode_eval logging_dir "
        "mp_parameters no_cuda overwrite_output_dir past_index push_to_hub_model_id "
        "push_to_hub_organization push_to_hub_token ray_scope save_safetensors torchdynamo "
        "tpu_metrics_debug tpu_num_cores use_ipex use_legacy_prediction_loop use_mps_device "
        "eval_packing dispatch_batches split_batches include_inputs_for_metrics "
        "include_tokens_per_second"
    ),
}

REFUSED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Field that cannot be given -> the reason."""

_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_FOR_WORKERS = ("dataloader_persistent_workers", "dataloader_prefetch_factor")


def check_trainer_keys(table: dict[str, Any], *, schedule: str) -> None:
    """Refuse keys of ``[trainer]`` that cannot be passed to transformers.TrainingArguments.

    Args:
        table: the table ``[trainer]``.
        schedule: the value of ``training.schedule``.

    Raises:
        ConfigError: a key is unknown, is set elsewhere, cannot work or has no effect, or has a
            value that is not allowed.
    """
    for key in table:
        if key in OURS:
            raise ConfigError(f"trainer.{key} cannot be given; use {OURS[key]}")
        if key in REFUSED:
            raise ConfigError(f"trainer.{key} cannot be given: {REFUSED[key]}; leave it out")
        if key not in AllowedKeys.model_fields:
            known = list(AllowedKeys.model_fields)
            raise ConfigError(
                f"unknown key trainer.{key}{closest(key, known)}; allowed: {', '.join(known)}"
            )
    given: AllowedKeys = validated(AllowedKeys, table, where="[trainer]", prefix="trainer")
    for key in RECOMPUTE[1:]:
        if key in table and RECOMPUTE[0] in table:
            raise ConfigError(
                f"trainer.{RECOMPUTE[0]} and trainer.{key} are two names of one setting; give one"
            )
    _check_effect(table, given, schedule)


def _check_effect(table: dict[str, Any], given: AllowedKeys, schedule: str) -> None:
    """Refuse keys that have no effect in combination with others."""
    for key in _ADAM:
        if key in table and not given.optim.startswith("adamw"):
            raise ConfigError(
                f"trainer.{key} = {table[key]!r} has no effect on trainer.optim = "
                f"{given.optim!r}; leave it out or choose adamw_torch"
            )
    for key in _FOR_WORKERS:
        if table.get(key) and not given.dataloader_num_workers:
            raise ConfigError(
                f"trainer.{key} = {table[key]!r} is for data-loader workers but there are none; "
                "set trainer.dataloader_num_workers to 1 or more, or leave it out"
            )
    odd = set(given.lr_scheduler_kwargs or {}) - ({"num_cycles"} if schedule == "cosine" else set())
    if odd:
        allowed = "num_cycles" if schedule == "cosine" else "nothing"
        raise ConfigError(
            f"trainer.lr_scheduler_kwargs has {sorted(odd)[0]!r}; training.schedule = {schedule!r} "
            f"takes {allowed} there"
        )


def for_trainer(table: dict[str, Any]) -> dict[str, Any]:
    """Select the keys of a checked table that transformers.TrainingArguments gets.

    Raises:
        ConfigError: the installed release does not have a field.
    """
    fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    passed = {key: value for key, value in table.items() if key not in RECOMPUTE}
    for key in passed:
        if key not in fields:
            raise ConfigError(
                f"trainer.{key} is not a field of TrainingArguments in transformers "
                f"{transformers.__version__}; leave it out or install another release"
            )
    return passed
