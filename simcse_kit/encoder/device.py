"""Devices: their choice, their absence, and the torch settings of a forward pass."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from simcse_kit.encoder.inputs import shown, whole_number
from simcse_kit.errors import ConfigError

__all__ = [
    "Device",
    "announce",
    "is_auto",
    "known_device",
    "put_on",
    "usual_state",
]

logger = logging.getLogger(__name__)

AnyModule = TypeVar("AnyModule", bound=nn.Module)

Device: TypeAlias = str | int | torch.device | None
"""``"auto"`` or None, ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"``, the number of a GPU, or a
``torch.device``."""

_ALLOWED = "auto, cpu, cuda, cuda:N, mps"


def is_auto(device: Any) -> bool:
    """Return whether a device argument leaves the choice to :func:`known_device`."""
    return device is None or (isinstance(device, str) and device == "auto")


def known_device(device: Any = "auto") -> torch.device:
    """Convert a device argument to a ``torch.device`` that exists on this machine.

    ``"auto"`` is a CUDA GPU if there is one, then an Apple GPU (MPS), then the CPU, in the order of
    ``get_device_name`` in sentence-transformers; it never fails. ``"auto"`` and ``"cuda"`` choose
    the GPU with the number ``LOCAL_RANK``, which torchrun sets, or else the current one.

    Args:
        device: Device, see :data:`Device`.

    Returns:
        The device; a CUDA device has an index.

    Raises:
        ConfigError: The value does not name a device, the device does not exist on this machine,
            or it is the meta device.

    Examples:
        >>> known_device("cpu")
        device(type='cpu')
        >>> known_device("auto").type in ("cuda", "mps", "cpu")
        True
    """
    if is_auto(device):
        return _best_device()
    number = whole_number(device)
    try:
        if number is None and not isinstance(device, str | torch.device):
            raise RuntimeError
        found = torch.device(device) if number is None else torch.device("cuda", number)
    except RuntimeError:
        raise _unusable(device, f"it is not the name of a device; allowed: {_ALLOWED}") from None
    if found.type == "meta":
        raise _unusable(device, f"tensors on it hold no data; allowed: {_ALLOWED}")
    if found.type == "cuda":
        return _known_gpu(device, found)
    if found.type == "mps" and not torch.backends.mps.is_available():
        reason = "torch finds no Apple GPU (MPS) on this machine"
        raise _unusable(device, f"{reason}; use {_present(_gpus()[0])}")
    return found


def put_on(module: AnyModule, device: torch.device, asked: Device) -> AnyModule:
    """Move the weights of a module to a device, and log which one if it is an accelerator.

    If the user left the choice open and the GPU cannot be used, the module stays on the CPU with a
    warning: the GPU may be full, reserved for another process, too old for this build of torch, or
    initialised before a fork.

    Args:
        module: Module on the CPU.
        device: Device that :func:`known_device` returned.
        asked: Argument that it was called with.

    Raises:
        ConfigError: The device does not exist on this machine, lacks memory, or is not supported.
    """
    try:
        with torch.inference_mode(False):  # weights made in that mode could not be trained
            module = module.to(device)
            _run_kernel(device)
    # torch reports an unknown or missing device in several ways.
    except (RuntimeError, AssertionError) as error:
        reason = _unusable(str(device), _reason(error))
        if not is_auto(asked) or device.type == "cpu":
            raise ConfigError(f"{reason}; use another device, such as cpu") from error
        logger.warning("%s; the CPU is used instead", reason)
        return module.to("cpu")
    announce(device, numbered=not is_auto(asked) and str(asked) != "cuda")
    return module


def _run_kernel(device: torch.device) -> None:
    """Compute something on a GPU: copies also work on one that is too old for the build of torch.

    Raises:
        RuntimeError: Torch has no kernels for the GPU.
    """
    if device.type == "cuda":
        torch.ones(1, device=device).sum().item()


@cache
def announce(device: torch.device, *, numbered: bool) -> None:
    """Log, once in a process, that an accelerator is used; nothing is logged for the CPU.

    Args:
        device: Device in use.
        numbered: Whether the user gave the number of the GPU. Otherwise the line also says how to
            use all GPUs, if there are several.
    """
    if device.type == "cpu":
        return
    name = others = ""
    if device.type == "cuda":
        name = f" ({torch.cuda.get_device_name(device)})"
        count = torch.cuda.device_count()
        if count > 1 and not numbered and "LOCAL_RANK" not in os.environ:
            others = (
                f", one of {count} GPUs; to encode on all of them: "
                "torchrun --nproc-per-node gpu -m simcse_kit encode ..."
            )
    logger.info("using %s%s%s", device, name, others)


def _best_device() -> torch.device:
    count, problem = _gpus()
    if count:
        return torch.device("cuda", _usual_gpu(count))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if problem:
        logger.warning("%s; the CPU is used", problem)
    return torch.device("cpu")


def _known_gpu(given: Any, device: torch.device) -> torch.device:
    """Add the index to a CUDA device, and check that it exists."""
    count, problem = _gpus()
    if not count:
        raise _unusable(given, f"{problem or _cuda_obstacle()}; use {_present(0)}")
    if str(device) == "cuda":  # without an index
        return torch.device("cuda", _usual_gpu(count))
    if device.index >= count:
        sees = "1 GPU" if count == 1 else f"{count} GPUs"
        raise _unusable(given, f"torch sees {sees}; use {_present(count)}")
    return device


def _usual_gpu(count: int) -> int:
    """Return the index of the GPU of this process, of ``count`` GPUs."""
    rank = os.environ.get("LOCAL_RANK", "")
    if rank.isdecimal():
        return int(rank) % count
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.current_device() if initialized else 0


def _gpus() -> tuple[int, str]:
    """Return the number of CUDA GPUs, and why torch cannot use those that the machine has.

    Torch reports an old driver by a long warning, once in a process.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        except RuntimeError as error:
            return 0, _reason(error)
    return count, "" if count or not caught else _reason(caught[0].message)


def _cuda_obstacle() -> str:
    """Return why torch cannot use CUDA on this machine."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"torch {torch.__version__} is built without CUDA (https://pytorch.org/get-started "
            "names builds with it)"
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return _reason(error)
    return "torch finds no GPU"


def _present(gpus: int) -> str:
    """List the devices of this machine for a remedy."""
    names = ["auto", "cpu"]
    if gpus:
        names.append("cuda:0" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}")
    if torch.backends.mps.is_available():
        names.append("mps")
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _unusable(device: Any, reason: str) -> ConfigError:
    return ConfigError(f"device {shown(device)} cannot be used: {reason}")


def _reason(error: Any) -> str:
    """Return the first line of a message without its final stop and torch's name of the step."""
    line = str(error).strip().partition("\n")[0]
    return line.removeprefix("CUDA initialization: ").partition(" (Triggered ")[0].rstrip(". ")


@contextmanager
def usual_state(device: torch.device) -> Iterator[None]:
    """Disable autocast and make ``device`` the default device inside the block.

    Args:
        device: Device of the model's weights.
    """
    with ExitStack() as stack:
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        # The default is rarely changed, and entering a context would cost time in every call.
        if torch.get_default_device().type not in ("cpu", device.type):
            stack.enter_context(device)
        yield
