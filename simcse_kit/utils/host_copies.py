"""Copies on the host of tensors on an accelerator, whose values are read without waiting for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "host_copy",
    "known_on_host",
    "on_both",
    "overwrite",
    "reads_are_free",
    "remember",
    "send",
    "send_known",
    "version_of",
]

_ATTRIBUTE = "_simcse_host_copy"


def reads_are_free(device: torch.device) -> bool:
    """Whether the host reads values on a device without waiting for it, as on the CPU."""
    return device.type == "cpu"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device without waiting for the device.

    Args:
        tensor: Tensor; one that is on the device already is returned.
        device: Destination.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # a copy from pageable memory waits
    return tensor.to(device, non_blocking=True)


def send_known(host: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the host to a device as :func:`send` does, and remember its values."""
    return remember(send(host, device), host)


def remember(tensor: Tensor, host: Tensor) -> Tensor:
    """Attach a copy on the host to a tensor on an accelerator; a tensor on the CPU needs none.

    Args:
        tensor: Tensor of any shape.
        host: The same values on the CPU.

    Returns:
        The same tensor.
    """
    if tensor.device.type != "cpu":
        setattr(tensor, _ATTRIBUTE, (version_of(tensor), host))
    return tensor


def known_on_host(tensor: Tensor) -> Tensor | None:
    """Return the values of a tensor on the CPU; None if only the device knows them.

    A copy is void as soon as the tensor is written to.
    """
    if tensor.device.type == "cpu":
        return tensor
    version, host = getattr(tensor, _ATTRIBUTE, (None, None))
    return host if version == version_of(tensor) else None


def host_copy(tensor: Tensor) -> Tensor:
    """Return the values of a tensor on the CPU.

    If only the device knows them, this waits for the device once; the copy is remembered.

    Examples:
        >>> host_copy(torch.tensor([1, 2]))
        tensor([1, 2])
    """
    host = known_on_host(tensor)
    if host is None:
        host = tensor.detach().cpu()
        remember(tensor, host)
    return host


def on_both(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function to tensors, and to their copies on the host if all are known.

    Args:
        function: Function of tensors that works on any device.
        tensors: Its arguments, all on one device.

    Returns:
        The result on the device of the tensors.
    """
    result = function(*tensors)
    if result.device.type == "cpu":
        return result
    hosts = [host for tensor in tensors if (host := known_on_host(tensor)) is not None]
    return remember(result, function(*hosts)) if len(hosts) == len(tensors) else result


@torch.no_grad()
def overwrite(tensor: Tensor, host: Tensor) -> None:
    """Set the values of a tensor to those of one on the CPU, without waiting for the device."""
    remember(tensor.copy_(send(host, tensor.device)), host)


def version_of(tensor: Tensor) -> int:
    """Return a number that changes when a tensor is written to."""
    # Tensors made in inference mode count no versions.
    return 0 if tensor.is_inference() else tensor._version
