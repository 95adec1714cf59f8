"""Device and precision of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from simcse_kit.config import RunConfig
from simcse_kit.encoder.device import known_device
from simcse_kit.errors import ConfigError

__all__ = ["resolve_precision", "run_device", "use_deterministic_operators"]

logger = logging.getLogger(__name__)

# Major number of the compute capability.
_AMPERE = 8


def run_device(config: RunConfig, processes: int = 1) -> torch.device:
    """Choose the device of a run: ``training.device``, or the CPU with ``trainer.use_cpu``.

    Args:
        config: configuration of the run.
        processes: number of processes that share each batch; each of them sees one GPU.

    Raises:
        ConfigError: The device does not exist, two settings contradict each other, or several
            GPUs are visible and none is named.
    """
    name = config.training.device
    if config.trainer.get("use_cpu"):
        if name not in ("auto", "cpu"):
            raise ConfigError(
                f"training.device = {name!r} and trainer.use_cpu = true contradict each other; "
                "leave trainer.use_cpu out"
            )
        name = "cpu"
    device = known_device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    # "auto" may have been resolved to a numbered GPU.
    if count > 1 and processes == 1 and ":" not in name:
        raise ConfigError(
            f"{count} GPUs are visible and one process trains on one GPU; start one process for "
            "each GPU, and they share every batch: torchrun --nproc-per-node gpu -m simcse_kit "
            "train ...; or choose one with --device cuda:0"
        )
    return torch.device("cuda", device.index or 0)


def resolve_precision(config: RunConfig, device: torch.device) -> RunConfig:
    """Replace ``training.precision = "auto"`` by the precision that the device gets.

    The result is part of run.toml, so that a run is not resumed in another precision by accident.

    Args:
        config: configuration of the run.
        device: device of the run.

    Raises:
        ConfigError: The device lacks the precision.
    """
    training, half = config.training, bool(config.trainer.get("fp16"))
    if half and device.type != "cuda":
        raise ConfigError(
            f"trainer.fp16 = true needs an NVIDIA GPU and the run uses device {str(device)!r}; use "
            "training.precision = 'bf16', or leave it out"
        )
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if _is_ampere(device) and not half else "fp32"
    elif precision == "bf16" and device.type != "cpu" and not _is_ampere(device):
        raise ConfigError(
            f"training.precision = 'bf16' is not supported by {_shown(device)}; use 'fp32' or "
            "'auto'"
        )
    if training.tf32 and not _is_ampere(device):
        raise ConfigError(
            "training.tf32 = true needs an NVIDIA GPU of compute capability 8.0 or higher and the "
            f"run uses {_shown(device)}; leave it out"
        )
    if training.compile and device.type == "cpu":
        raise ConfigError(
            f"training.compile = true is for GPUs and the run uses {_shown(device)}, whose layers "
            "run in compiled kernels already; leave it out"
        )
    logger.info(
        "training on %s in %s%s",
        _shown(device),
        "fp16 autocast" if half else "bf16 autocast" if precision == "bf16" else "fp32",
        ", fp32 matrix products in TF32" if training.tf32 else "",
    )
    update: dict[str, Any] = {"precision": precision}
    return config.model_copy(update={"training": training.model_copy(update=update)})


def _is_ampere(device: torch.device) -> bool:
    """Whether a device is a GPU of the Ampere generation or later, with bf16 and TF32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _AMPERE


def _shown(device: torch.device) -> str:
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"device {str(device)!r}{name}"


def use_deterministic_operators() -> None:
    """Let torch use only deterministic operators, and log what that means."""
    # cuBLAS reads it at the first matrix product on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    logger.info(
        "only deterministic operators are used: on a CPU the same seed and number of threads give "
        "the same bytes in any case, and nothing gets slower; on a GPU steps take longer, and an "
        "operator without a deterministic form stops the run"
    )
