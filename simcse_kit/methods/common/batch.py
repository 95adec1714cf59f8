"""The batch that a training method receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch, Guide

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """B examples with V views of up to L tokens.

    Args:
        input_ids: (B, V, L) int64, in the order of views that :meth:`Method.views` gives.
        attention_mask: (B, V, L), 0 at padding.
        text_ids: (B, V) int64, hashes of the texts.
        view_mask: (B, V) bool, False where a text is absent, such as a hard negative;
            ``input_ids`` holds a dummy sentence there.
        labels: (B,) float32, the label of every row, or None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    view_mask: Tensor
    labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers B of examples and V of views."""
        examples, views = self.text_ids.shape
        return examples, views

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return ids and mask of all views, (B·V, L) each, example by example."""
        return self.input_ids.flatten(0, 1), self.attention_mask.flatten(0, 1)

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return self._each(lambda tensor: tensor.to(device))

    def repeat_views(self, times: int) -> Batch:
        """Repeat every view ``times`` times: (B, V·times, L)."""
        return self.take_views([view for view in range(self.shape[1]) for _ in range(times)])

    def take_views(self, views: Sequence[int]) -> Batch:
        """Select views by number, in the given order: (B, len(views), L)."""
        wanted = torch.tensor(views, device=self.text_ids.device)
        # Labels belong to the example and have no axis of views.
        return self._each(lambda part: part.index_select(1, wanted) if part.dim() > 1 else part)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        given = {n: tensor for n, tensor in vars(self).items() if tensor is not None}
        return Batch(**{name: change(tensor) for name, tensor in given.items()})

    def view_numbers(self) -> Tensor:
        """Return the view number of every row of :meth:`rows`, (B·V,) int64."""
        examples, views = self.shape
        return torch.arange(views, device=self.text_ids.device).repeat(examples)

    def to_contrastive(
        self,
        embeddings: Tensor,
        temperature: float | Tensor,
        *,
        hard_negative_alpha: float = 1.0,
        guide: Guide | None = None,
    ) -> ContrastiveBatch:
        """Use view 0 as anchors, view 1 as positives and further views as hard negatives.

        Args:
            embeddings: (B, V, d), the embeddings of the views.
            temperature: The temperature τ of the softmax.
            hard_negative_alpha: The weight α of an anchor's own hard negatives.
            guide: The embeddings of the same texts by a second model.

        Raises:
            ConfigError: There is no negative.
        """
        has_hard = self.shape[1] > 2
        return ContrastiveBatch(
            embeddings[:, 0],
            embeddings[:, 1],
            embeddings[:, 2:] if has_hard else None,
            temperature=temperature,
            hard_negative_alpha=hard_negative_alpha,
            negative_mask=self.view_mask[:, 2:] if has_hard else None,
            anchor_ids=self.text_ids[:, 0],
            positive_ids=self.text_ids[:, 1],
            negative_ids=self.text_ids[:, 2:] if has_hard else None,
            guide=guide,
        )
