"""A copy of a network in half precision, for accelerators."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from simcse_kit.encoder.accelerator import is_out_of_memory
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError

__all__ = [
    "HALF_TYPES",
    "HalfEncoder",
    "half_backbone",
    "half_obstacle",
    "require_half",
    "weights_state",
]

HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the weights for each half precision."""


class HalfEncoder(EncoderModel):
    """An encoder whose transformer is in half precision; pooling and head keep their types.

    Args:
        encoder: Encoder, whose tokenization, pooling and head are used.
        backbone: Its transformer in half precision, from :func:`half_backbone`.
    """

    def __init__(self, encoder: EncoderModel, backbone: Any):
        super().__init__(backbone, encoder.tokenization, pooling=encoder.pooling, head=encoder.head)
        self.known_batching = encoder.batching
        self._pooled = torch.float32
        if encoder.head is not None:
            self._pooled = next((part.dtype for part in encoder.head.parameters()), torch.float32)

    def _before_pooling(self, states: Sequence[Tensor]) -> Sequence[Tensor]:
        return [part.to(self._pooled) for part in states]


def half_backbone(backbone: Any, precision: str) -> Any:
    """Copy a transformer with its weights in half precision, in evaluation mode.

    Args:
        backbone: Transformer.
        precision: Key of :data:`HALF_TYPES`.
    """
    kind = HALF_TYPES[precision]
    exact = set(getattr(backbone, "_keep_in_fp32_modules_strict", None) or ())
    if precision == "fp16":  # modules whose states leave the range of fp16
        exact |= set(getattr(backbone, "_keep_in_fp32_modules", None) or ())

    def converted(name: str, tensor: Tensor) -> Tensor:
        # Rotary positions need the frequencies in float32, as transformers keeps them on loading.
        exempt = "inv_freq" in name or any(f".{part}." in f".{name}." for part in exact)
        return tensor.detach() if exempt or not tensor.is_floating_point() else tensor.to(kind)

    # A copy finds the tensors already converted, so that no second copy in float32 is made.
    memo: dict[int, Any] = {
        id(part): nn.Parameter(converted(name, part.detach()), requires_grad=False)
        for name, part in backbone.named_parameters()
    }
    memo |= {id(part): converted(name, part) for name, part in backbone.named_buffers()}
    return copy.deepcopy(backbone, memo).eval()


@torch.inference_mode()
def require_half(encoder: HalfEncoder, precision: str) -> None:
    """Try an encoder in half precision on one short row.

    Args:
        encoder: Encoder in evaluation mode.
        precision: Key of :data:`HALF_TYPES`.

    Raises:
        ConfigError: The architecture does not support the precision.
    """
    ids = torch.zeros((1, 4), dtype=torch.int64, device=encoder.device)
    try:
        with usual_state(encoder.device):
            encoder(ids, torch.ones_like(ids))
    # An unknown architecture may raise any error.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"precision {precision!r} is not supported for {encoder.backbone.config.model_type} "
            f"on {encoder.device} ({reason:.200}); use 'fp32'"
        ) from error


def half_obstacle(precision: str, device: torch.device) -> str | None:
    """Return why an accelerator cannot compute in half precision; None if it can.

    Args:
        precision: Key of :data:`HALF_TYPES`.
        device: Device of an encoder, not the CPU.
    """
    if precision != "bf16":
        return None
    if device.type == "cuda":
        with torch.cuda.device(device):
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        try:
            torch.zeros(1, dtype=torch.bfloat16, device=device).add_(1)
            supported = True
        # MPS raises either, depending on the release of macOS.
        except (RuntimeError, TypeError):
            supported = False
    return None if supported else f"{device} does not compute in bf16"


def weights_state(backbone: Any) -> tuple[Any, ...]:
    """Return a value that differs after a weight of a transformer was replaced or written to.

    It waits for the device once.
    """
    parts = [part.detach() for part in backbone.parameters()]
    # TRAP: fused optimizers write without raising the version of a tensor, so the values are read.
    norms = torch._foreach_norm([part for part in parts if part.numel()], 2, torch.float32)
    numbers = torch.stack(norms).tolist()
    return (*(part.data_ptr() for part in parts), *numbers)
