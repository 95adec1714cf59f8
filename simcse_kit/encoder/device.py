"""Devices named by callers, and the torch settings of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from simcse_kit.encoder.inputs import shown, whole_number
from simcse_kit.errors import ConfigError
from simcse_kit.utils.host_copies import send

__all__ = ["known_device", "put_on", "send", "usual_state"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def known_device(device: Any) -> torch.device:
    """Convert a device argument to a ``torch.device``; None means the CPU.

    Raises:
        ConfigError: The value does not name a device, or names the meta device.
    """
    if device is None:
        return torch.device("cpu")
    number = whole_number(device)
    try:
        if number is None and not isinstance(device, str | torch.device):
            raise RuntimeError("it is not a name, a number or a torch.device")
        found = torch.device(device if number is None else number)
        if found.type == "meta":
            raise RuntimeError("tensors on it hold no data")
    except RuntimeError as error:
        raise ConfigError(f"device {shown(device)} cannot be used: {_reason(error)}") from error
    return found


def put_on(module: AnyModule, device: torch.device) -> AnyModule:
    """Move the weights of a module to a device.

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    try:
        with torch.inference_mode(False):  # weights made in that mode could not be trained
            return module.to(device)
    # torch reports an unknown or missing device in several ways.
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {str(device)!r} cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


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
