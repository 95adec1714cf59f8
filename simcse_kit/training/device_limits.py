"""Peak memory of a run, and the errors of a device that a user can do something about."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simcse_kit.encoder.accelerator import is_out_of_memory
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.checks import chunking_obstacle
from simcse_kit.training.plan import RunPlan
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.training.state.output_dir import CHECKPOINTS

__all__ = ["device_errors", "peak_bytes", "restart_peak"]

_HOST = "cpu"
# What torch says of an operator that --deterministic does not allow.
_NOT_DETERMINISTIC = "does not have a deterministic implementation"
# Modules of the errors of torch.compile.
_COMPILER = ("torch._dynamo", "torch._inductor")


def restart_peak(device: torch.device) -> None:
    """Forget the earlier peak of the tensors on a GPU."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the largest memory of the tensors on a GPU, or of this process so far on a CPU.

    None: the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def device_errors(plan: RunPlan) -> Iterator[None]:
    """Turn errors of the device into errors that say what to set.

    These are allocations that fail on an accelerator, operators that have no deterministic form if
    ``training.deterministic`` asks for one, and layers that torch does not compile.

    Args:
        plan: plan of the run.

    Raises:
        ConfigError: The device has too little free memory, or no deterministic form, or does not
            compile.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if plan.config.training.deterministic and _NOT_DETERMINISTIC in text:
            operator = text.partition(_NOT_DETERMINISTIC)[0].strip()
            raise ConfigError(
                f"training.deterministic = true cannot be kept: on device "
                f"{str(plan.arguments.device)!r} torch has no deterministic form of {operator}; "
                "leave --deterministic out, or train with --device cpu"
            ) from error
        if plan.config.training.compile and type(error).__module__.startswith(_COMPILER):
            reason = " ".join(text.split())
            raise ConfigError(
                "training.compile = true cannot be kept: torch does not compile the layers on "
                f"device {str(plan.arguments.device)!r} ({reason:.200}); leave it out"
            ) from error
        if plan.arguments.device.type == _HOST or not is_out_of_memory(error):
            raise
        raise ConfigError(_message(plan)) from error


def _message(plan: RunPlan) -> str:
    training, device = plan.config.training, plan.arguments.device
    taken, budget = "", "--memory-budget 8GB"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        held = torch.cuda.max_memory_allocated(device)
        others = max(0, total - free - torch.cuda.memory_reserved(device))
        taken = (
            f": this run had {_gb(held)} of {_gb(total)} allocated, and other programs and the "
            f"driver use {_gb(others)}"
        )
        # A tenth is left for what the budget does not count.
        budget = f"--memory-budget {max(1, int(0.9 * (total - others) / 1e9))}GB"
    remedies = []
    if training.chunk_tokens is not None:
        remedies.append(f"training.chunk_tokens smaller than {training.chunk_tokens}")
    elif training.memory_budget is not None:
        remedies.append(f"a --memory-budget smaller than {training.memory_budget}")
    elif chunking_obstacle(plan.method, plan.options) is None:
        remedies.append(f"{budget}, so that the batch is computed in chunks that fit")
    remedies.append(f"a --batch-size smaller than {training.batch_size}")
    if training.precision == "fp32" and not plan.arguments.fp16 and device.type == "cuda":
        remedies.append("--precision bf16, if the GPU has it")
    steps = list(checkpoint_steps(plan.folder / CHECKPOINTS))
    resume = (
        f"; --resume --allow-changed continues from the checkpoint of step {steps[-1]}"
        if steps
        else ""
    )
    return f"device {str(device)!r} is out of memory{taken}; give {' or '.join(remedies)}{resume}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
