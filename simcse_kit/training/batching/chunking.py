"""Chunks of the training steps, from the settings of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers

from simcse_kit.config import TrainingSection
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import chunking_obstacle
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.memory import MemoryPlan, plan_memory
from simcse_kit.training.state.output_dir import keep_chunks
from simcse_kit.utils.distributed import ALONE, Processes
from simcse_kit.utils.sizes import parse_bytes

__all__ = ["check_chunking", "gradient_cache", "memory_plan"]


def check_chunking(
    method: type[Method], options: MethodConfig, training: TrainingSection, processes: int = 1
) -> None:
    """Refuse settings that contradict each other or the method.

    Args:
        method: the class of the method.
        options: the options of the method.
        training: the settings of the run.
        processes: number of processes that share each batch.

    Raises:
        ConfigError: a memory budget and a chunk size are both given, or the loss is not a
            function of the embeddings alone, so that batches cannot be divided.
    """
    given = [key for key in ("memory_budget", "chunk_tokens") if getattr(training, key) is not None]
    if len(given) == 2:
        raise ConfigError(
            f"training.memory_budget = {training.memory_budget!r} and training.chunk_tokens = "
            f"{training.chunk_tokens} both set the chunk size; give one of them"
        )
    reason = chunking_obstacle(method, options) if given or processes > 1 else None
    if reason is not None and not given:
        raise ConfigError(
            f"{processes} processes cannot share the batches of method {method.name!r}, because "
            f"{reason}; train in one process"
        )
    if reason is not None:
        raise ConfigError(
            f"training.{given[0]} cannot be used with method {method.name!r}, because {reason}; "
            f"leave training.{given[0]} out and use a --batch-size that fits"
        )


def memory_plan(
    method: Method,
    sample: Callable[[], Batch],
    training: TrainingSection,
    arguments: transformers.TrainingArguments,
    max_length: int,
) -> MemoryPlan | None:
    """Plan the chunks that fit into ``training.memory_budget``.

    Args:
        method: the method; it is moved to the device of the run.
        sample: function that returns rows to measure.
        training: the settings of the run.
        arguments: the arguments of the trainer, with device and precision.
        max_length: most tokens of a sentence.

    Returns:
        The plan; None without a budget.

    Raises:
        ConfigError: not even one sentence fits.
    """
    if training.memory_budget is None:
        return None
    return plan_memory(
        method.to(arguments.device),
        sample().to(arguments.device),
        budget=parse_bytes(training.memory_budget),
        batch_size=training.batch_size,
        max_length=max_length,
        autocast=_autocast(arguments),
    )


def gradient_cache(
    folder: Path,
    training: TrainingSection,
    arguments: transformers.TrainingArguments,
    plan: MemoryPlan | None,
    *,
    resume: bool,
    processes: Processes = ALONE,
) -> GradientCache | None:
    """Make the gradient cache that computes the training steps in chunks.

    Args:
        folder: the folder of the run, which records the planned chunk size for a resumed run.
        training: the settings of the run.
        arguments: the arguments of the trainer.
        plan: the plan from :func:`memory_plan`.
        resume: whether the run continues from a checkpoint.
        processes: the processes that share each batch.

    Returns:
        The cache; None if each batch is computed in one piece.

    Raises:
        ConfigError: the folder cannot be written or is damaged.
    """
    tokens, kept = training.chunk_tokens, 0
    if plan is not None:
        planned = plan.chunk_tokens
        tokens = processes.from_first(lambda: keep_chunks(folder, planned, resume=resume))
        kept = plan.kept_tokens
    if tokens is None and processes.size == 1:
        return None
    return GradientCache(
        tokens, kept_tokens=kept, autocast=_autocast(arguments), processes=processes
    )


def _autocast(arguments: transformers.TrainingArguments) -> Callable[[], torch.autocast]:
    """Return the autocast context that the trainer uses around a forward pass."""
    half = arguments.bf16 or arguments.fp16
    dtype = torch.float16 if arguments.fp16 else torch.bfloat16
    return partial(torch.autocast, arguments.device.type, dtype=dtype, enabled=half)
