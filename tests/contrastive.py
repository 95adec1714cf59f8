"""InfoNCE with tensors as arguments, for tests that compare it with other code."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce


def info_nce_loss(*embeddings: Tensor, symmetric: bool = False, **options: Any) -> Tensor:
    """Anchors, positives and hard negatives, with options of ContrastiveBatch, to the loss."""
    return info_nce(ContrastiveBatch(*embeddings, **options), symmetric=symmetric).loss
