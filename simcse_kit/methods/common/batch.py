"""The batch that a training method receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder.row_lengths import remember_lengths, remembered
from simcse_kit.losses.contrastive_batch import ContrastiveBatch, Guide
from simcse_kit.utils.host_copies import host_copy, on_both, remember, send_known

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
        targets: (B, t) float32, the vector that teachers give every row, or None.
        lengths: (B, V) int64 on the host, the number of tokens of each text; None if only
            ``attention_mask`` tells.
        host: the tensors above once more, by name, as arrays on the host; None if only the device
            has them. :func:`~simcse_kit.utils.host_copies.host_copy` knows them afterwards.
    """

    input_ids: Tensor
    attention_mask: Tensor
    text_ids: Tensor
    view_mask: Tensor
    labels: Tensor | None = None
    targets: Tensor | None = None
    lengths: InitVar[NDArray[np.int64] | None] = None
    host: InitVar[Mapping[str, NDArray[Any]] | None] = None

    def __post_init__(
        self, lengths: NDArray[np.int64] | None, host: Mapping[str, NDArray[Any]] | None
    ) -> None:
        for name, values in (host or {}).items():
            remember(getattr(self, name), torch.from_numpy(values))
        # Kept with the mask, so that a batch with another mask does not keep wrong lengths.
        if lengths is not None:
            remember_lengths(self.attention_mask, lengths)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers B of examples and V of views."""
        examples, views = self.text_ids.shape
        return examples, views

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return ids and mask of all views, (B·V, L) each, example by example.

        :func:`~simcse_kit.encoder.row_lengths.lengths_of` knows the lengths of the mask.
        """
        ids, mask = (
            on_both(lambda part: part.flatten(0, 1), part)
            for part in (self.input_ids, self.attention_mask)
        )
        known = remembered(self.attention_mask)
        if known is not None:
            remember_lengths(mask, known.ravel())
        return ids, mask

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device; one that is on the host already does not wait for it."""
        host = self.on_host()
        batch = host._each(lambda part: send_known(part, device))
        if device.type != "cpu":
            lengths = host.attention_mask.sum(dim=-1).numpy()
            remember_lengths(batch.attention_mask, lengths)
        return batch

    def on_host(self) -> Batch:
        """Return the batch on the CPU, where values can be read; no copy if it is there already."""
        return self._each(host_copy)

    def repeat_views(self, times: int) -> Batch:
        """Repeat every view ``times`` times: (B, V·times, L)."""
        return self.take_views([view for view in range(self.shape[1]) for _ in range(times)])

    def take_views(self, views: Sequence[int]) -> Batch:
        """Select views by number, in the given order: (B, len(views), L)."""

        def chosen(part: Tensor) -> Tensor:
            return torch.stack([part[:, view] for view in views], dim=1)

        # Labels and targets belong to the example and have no axis of views.
        taken = replace(
            replace(self, labels=None, targets=None)._each(lambda part: on_both(chosen, part)),
            labels=self.labels,
            targets=self.targets,
        )
        known = remembered(self.attention_mask)
        if known is not None:
            remember_lengths(taken.attention_mask, known[:, list(views)])
        return taken

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            name: change(part) for name, part in vars(self).items() if isinstance(part, Tensor)
        }
        return replace(self, **changed)

    def view_numbers(self) -> Tensor:
        """Return the view number of every row of :meth:`rows`, (B·V,) int64."""
        examples, views = self.shape
        return send_known(torch.arange(views).repeat(examples), self.text_ids.device)

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
            negative_mask=_views(self.view_mask, slice(2, None)) if has_hard else None,
            anchor_ids=_views(self.text_ids, 0),
            positive_ids=_views(self.text_ids, 1),
            negative_ids=_views(self.text_ids, slice(2, None)) if has_hard else None,
            guide=guide,
        )


def _views(tensor: Tensor, which: int | slice) -> Tensor:
    return on_both(lambda part: part[:, which], tensor)
