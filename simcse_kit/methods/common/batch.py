"""A batch as a training method gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """B examples in V views of at most L tokens.

    Args:
        input_ids: (B, V, L) int64, laid out by :meth:`Method.views`.
        attention_mask: (B, V, L), 0 at padding.
        text_ids: (B, V) int64, hashes of the texts.
        view_mask: (B, V) bool, False where a text is absent, such as a hard negative;
            ``input_ids`` holds a dummy sentence there.
        labels: (B,) float32, the label of every row; None for data without labels.
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    view_mask: Tensor
    labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """B and V."""
        examples, views = self.text_ids.shape
        return examples, views

    def rows(self) -> tuple[Tensor, Tensor]:
        """Ids and mask of all views of all examples, both (B·V, L); example by example."""
        return self.input_ids.flatten(0, 1), self.attention_mask.flatten(0, 1)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def repeat_views(self, times: int) -> Batch:
        """Every view ``times`` times in a row: (B, V·times, L)."""
        return self.take_views([view for view in range(self.shape[1]) for _ in range(times)])

    def take_views(self, views: Sequence[int]) -> Batch:
        """The views with these numbers, in this order: (B, len(views), L)."""
        wanted = torch.tensor(views, device=self.text_ids.device)
        # Labels belong to the row and have no axis of views.
        return self._each(lambda part: part.index_select(1, wanted) if part.dim() > 1 else part)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        given = {n: tensor for n, tensor in vars(self).items() if tensor is not None}
        return Batch(**{name: change(tensor) for name, tensor in given.items()})

    def view_numbers(self) -> Tensor:
        """(B·V,) int64: the view of every row of :meth:`rows`."""
        examples, views = self.shape
        return torch.arange(views, device=self.text_ids.device).repeat(examples)
