"""From the settings of a run to the chunks of its training steps."""

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
    """Refuse settings that contradict each other or the method. Needs no weights.

    Args:
        method: the method.
        options: its options.
        training: the settings.
        processes: how many share each batch.

    Raises:
        ConfigError: budget and chunk are both given, or batches are to be cut or shared and the
            loss is no function of embeddings.
    """
    given = [key for key in ("memory_budget", "chunk_tokens") if getattr(training, key) is not None]
    if len(given) == 2:
        raise ConfigError(
            f"training.memory_budget = {training.memory_budget!r} and training.chunk_tokens = "
            f"{training.chunk_tokens} both say how batches are cut; give one of them"
        )
    reason = method.beyond_embeddings(options) if given or processes > 1 else None
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
    """What fits into ``training.memory_budget``; None without one.

    Args:
        method: is moved to the device of the run.
        sample: gives rows to measure.
        training: the settings.
        arguments: the trainer's; they know device and precision.
        max_length: most tokens of a sentence.

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
    """What makes the training steps in chunks; None for steps in one piece.

    Args:
        folder: claimed by the run; it keeps the chunks of a plan for a resumed run.
        training: the settings.
        arguments: the trainer's.
        plan: of :func:`memory_plan`.
        resume: the run goes on from a checkpoint.
        processes: those that share each batch.

    Raises:
        ConfigError: the folder cannot be written or is damaged.
    """
    tokens, kept = training.chunk_tokens, 0
    if plan is not None:
        planned = plan.chunk_tokens
        tokens = processes.agree(lambda: keep_chunks(folder, planned, resume=resume))
        kept = plan.kept_tokens
    if tokens is None and processes.size == 1:
        return None
    return GradientCache(
        tokens, kept_tokens=kept, autocast=_autocast(arguments), processes=processes
    )


def _autocast(arguments: transformers.TrainingArguments) -> Callable[[], torch.autocast]:
    """What the trainer puts around a forward pass of the whole method."""
    half = arguments.bf16 or arguments.fp16
    dtype = torch.float16 if arguments.fp16 else torch.bfloat16
    return partial(torch.autocast, arguments.device.type, dtype=dtype, enabled=half)
