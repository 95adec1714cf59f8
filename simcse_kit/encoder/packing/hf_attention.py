"""Packed attention for every model that uses transformers' attention interface.

Which tokens a token sees is not guessed from the configuration: it is read off the mask function
that transformers hands to the mask interface, so that causal, bidirectional and windowed layers
mean here what they mean there.
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
from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.encoder.packing.row_groups import AttentionOptionsError, UnpackableError

__all__ = ["IMPLEMENTATION", "packed_rows"]

IMPLEMENTATION = "simcse_packed"

# Keywords of attention functions that change nothing here: the mask holds the first two, and the
# others are about caches, outputs and kernels. Any other keyword with a value means padding.
_WITHOUT_EFFECT = frozenset(
    "is_causal sliding_window position_ids cache_position use_cache output_attentions "
    "output_hidden_states output_router_logits return_dict deterministic cu_seq_lens_q "
    "cu_seq_lens_k max_length_q max_length_k num_items_in_batch".split()
)


@dataclass(frozen=True)
class _Reach:
    """How many tokens before and after itself a token sees; None for all."""

    behind: int | None
    ahead: int | None


@dataclass
class _Pass:
    """One forward pass over a packed batch, and the masks that the model was given for it."""

    layout: Layout
    masks: list[tuple[Tensor, _Reach]] = field(default_factory=list)
    # The same for all layers of one reach: making them costs a tenth of a small model's pass.
    _of_groups: dict[tuple[_Reach, torch.dtype, torch.device], list[Tensor | None]] = field(
        default_factory=dict
    )

    def reach(self, mask: Tensor | None) -> _Reach:
        for known, reach in self.masks:
            if known is mask:
                return reach
        raise UnpackableError("makes its attention masks in its own way")

    def of_groups(self, reach: _Reach, like: Tensor) -> list[Tensor | None]:
        """The masks of each group of equally long rows."""
        key = reach, like.dtype, like.device
        if key not in self._of_groups:
            self._of_groups[key] = masks_of(
                self.layout, self.layout, behind=reach.behind, ahead=reach.ahead, like=like
            )
        return self._of_groups[key]


# Not an argument of the model: not every architecture hands unknown arguments down to attention.
_pass: ContextVar[_Pass | None] = ContextVar("packed_pass", default=None)


@contextmanager
def packed_rows(layout: Layout) -> Iterator[None]:
    """Inside, models with :data:`IMPLEMENTATION` treat their one row as this packed batch."""
    token = _pass.set(_Pass(layout))
    try:
        yield
    finally:
        _pass.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    current = _pass.get()
    if current is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **options,
        )
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
    reach = current.reach(attention_mask)
    output = block_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        layout,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        behind=reach.behind,
        ahead=reach.ahead,
        masks=partial(current.of_groups, reach, query),
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
    current = _pass.get()
    if current is None:
        mask: Tensor | None = sdpa_mask(
            q_length=q_length,
            kv_length=kv_length,
            mask_function=mask_function,
            attention_mask=attention_mask,
            use_vmap=use_vmap,
            device=device,
            **options,
        )
        return mask
    layout = current.layout
    if (q_length, kv_length) != (layout.tokens, layout.tokens):
        raise UnpackableError("attends to more than the tokens of the batch")
    if attention_mask is not None and not bool(attention_mask.all()):
        raise UnpackableError("hides tokens of its own choice")
    # The longest row comes first; what holds within it holds within the others.
    seen = sdpa_mask(
        batch_size=1,
        q_length=layout.longest,
        kv_length=layout.longest,
        mask_function=mask_function,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )
    assert isinstance(seen, Tensor)
    current.masks.append((seen, _reach_of(seen[0, 0])))
    return seen


def _reach_of(seen: Tensor) -> _Reach:
    """The band that a mask ``(L, L)``, True at what is seen, consists of.

    Raises:
        UnpackableError: it is no band along the diagonal.
    """
    length = len(seen)
    behind, ahead = torch.stack([seen[:, 0].sum(), seen[0].sum()]).sub(1).tolist()
    places = torch.arange(length, device=seen.device)
    distance = places - places[:, None]
    if not torch.equal(seen, (distance <= ahead) & (distance >= -behind)):
        raise UnpackableError("attends to tokens that are not a window around each token")
    return _Reach(
        behind if behind < length - 1 else None,
        ahead if ahead < length - 1 else None,
    )


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)
