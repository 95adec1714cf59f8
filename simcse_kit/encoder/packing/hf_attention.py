"""Packed attention for all models that use transformers' attention interface.

The tokens that a token attends to are read from the mask function that transformers passes to the
mask interface, and not guessed from the configuration, so that causal, bidirectional and windowed
layers keep their meaning. The interface is described in
https://github.com/huggingface/transformers/blob/68c570d3afb7957aeb22e62644af8403b98d8320/docs/source/en/attention_interface.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from simcse_kit.encoder.packing.attention import block_attention, masks_of
from simcse_kit.encoder.packing.layout import (
    AttentionOptionsError,
    Layout,
    UnpackableError,
    Window,
)

__all__ = ["IMPLEMENTATION", "packed_attention", "packed_rows", "window_of"]

IMPLEMENTATION = "simcse_packed"

# Keywords of attention functions that change nothing here: the mask holds the first two, and the
# others are about caches, outputs and kernels. A batch with any other keyword is not packed.
_WITHOUT_EFFECT = frozenset(
    "is_causal sliding_window position_ids cache_position use_cache output_attentions "
    "output_hidden_states output_router_logits return_dict deterministic cu_seq_lens_q "
    "cu_seq_lens_k max_length_q max_length_k num_items_in_batch".split()
)


@dataclass
class _Pass:
    """A forward pass over a packed batch, and the masks that the model was given for it."""

    layout: Layout
    masks: list[tuple[Tensor, Window]] = field(default_factory=list)
    # Shared by all layers with the same window: making them costs a tenth of a small model's pass.
    _of_groups: dict[tuple[Window, torch.dtype, torch.device], list[Tensor | None]] = field(
        default_factory=dict
    )

    def window(self, mask: Tensor | None) -> Window:
        for known, window in self.masks:
            if known is mask:
                return window
        raise UnpackableError("makes its own attention masks")

    def of_groups(self, window: Window, like: Tensor) -> list[Tensor | None]:
        """Return the masks of each group of rows of equal length."""
        key = window, like.dtype, like.device
        if key not in self._of_groups:
            self._of_groups[key] = masks_of(self.layout, self.layout, window=window, like=like)
        return self._of_groups[key]


# Not an argument of the model: some architectures do not pass unknown arguments to attention.
_pass: ContextVar[_Pass | None] = ContextVar("packed_pass", default=None)


@contextmanager
def packed_rows(layout: Layout) -> Iterator[None]:
    """Make models with :data:`IMPLEMENTATION` treat their one row as this packed batch."""
    token = _pass.set(_Pass(layout))
    try:
        yield
    finally:
        _pass.reset(token)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention for transformers; outside :func:`packed_rows` this is SDPA.

    Raises:
        UnpackableError: The model passes options or tensors that packed attention does not support.
    """
    current = _pass.get()
    if current is None:
        options |= {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    unknown = sorted(
        name
        for name, option in options.items()
        if name not in _WITHOUT_EFFECT and option is not None and option is not False
    )
    if unknown:
        raise AttentionOptionsError(unknown)
    layout = current.layout
    shapes = {(part.shape[0], part.shape[2]) for part in (query, key, value)}
    if shapes != {(1, layout.tokens)}:
        raise UnpackableError("attends to more than the tokens of the batch")
    window = current.window(attention_mask)
    output = block_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        layout,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        window=window,
        masks=partial(current.of_groups, window, query),
    )
    return output[None], None


def _mask(
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Tensor | None:
    """Make the mask for transformers, and remember its window."""
    make = partial(sdpa_mask, mask_function=mask_function, use_vmap=use_vmap)
    current = _pass.get()
    if current is None:
        mask: Tensor | None = make(
            q_length=q_length,
            kv_length=kv_length,
            attention_mask=attention_mask,
            device=device,
            **options,
        )
        return mask
    layout = current.layout
    if (q_length, kv_length) != (layout.tokens, layout.tokens):
        raise UnpackableError("attends to more than the tokens of the batch")
    if attention_mask is not None and not bool(attention_mask.all()):
        raise UnpackableError("masks some tokens of the batch")
    # The longest row is the first one; its window is that of the other rows too.
    longest = layout.longest
    sizes: dict[str, Any] = {"batch_size": 1, "q_length": longest, "kv_length": longest}
    try:
        # On the host, where reading it makes no accelerator wait.
        seen = make(**sizes, device="cpu", allow_is_causal_skip=False)
    except (RuntimeError, IndexError):  # the function reads tensors of the model's device
        seen = make(**sizes, device=device, allow_is_causal_skip=False)
    assert isinstance(seen, Tensor)
    current.masks.append((seen, window_of(seen[0, 0])))
    return seen


def window_of(seen: Tensor) -> Window:
    """Find the window that a mask describes.

    Args:
        seen: ``(L, L)`` bool, True where the token of the row attends to the token of the column.

    Raises:
        UnpackableError: The mask is not a band along the diagonal.
    """
    length = len(seen)
    behind, ahead = torch.stack([seen[:, 0].sum(), seen[0].sum()]).sub(1).tolist()
    places = torch.arange(length, device=seen.device)
    distance = places - places[:, None]
    if not torch.equal(seen, (distance <= ahead) & (distance >= -behind)):
        raise UnpackableError("attends to tokens that are not a window around each token")
    return Window(
        behind if behind < length - 1 else None,
        ahead if ahead < length - 1 else None,
    )


AttentionInterface.register(IMPLEMENTATION, packed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)
