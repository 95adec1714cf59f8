"""Settings of torch that change what a forward pass computes, set aside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["usual_state"]


@contextmanager
def usual_state(device: torch.device) -> Iterator[None]:
    """A block without autocast, in which new tensors are made on ``device``.

    Args:
        device: where the weights of the model are.
    """
    with ExitStack() as stack:
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        # As a rule nobody has changed the default, and a context would cost time in every call.
        if torch.get_default_device().type not in ("cpu", device.type):
            stack.enter_context(device)
        yield
