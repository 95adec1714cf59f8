"""Our encoders as mteb takes them, for its tasks and its leaderboard's protocol.

``mteb.evaluate(MtebEncoder(encoder, "me/model"), tasks=mteb.get_tasks(tasks=["STS12"]))``
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from simcse_kit.errors import MissingExtraError, ModelError
from simcse_kit.evaluation.embed import Encoder, embed

__all__ = ["MtebEncoder"]


class MtebEncoder:
    """What mteb 2 calls an encoder (its ``EncoderProtocol``), around anything that has ``encode``.

    All texts of a task are encoded in one call, each distinct one once, so that batches are ours
    and not those of mteb's loader.

    Args:
        encoder: such as a :class:`~simcse_kit.encoder.encoder.SentenceEncoder`.
        model_name: "ORGANISATION/MODEL", under which mteb files the results.
        revision: of the model, filed as well.

    Raises:
        MissingExtraError: mteb is not installed.
        ModelError: the name has no organisation.
    """

    def __init__(self, encoder: Encoder, model_name: str, revision: str | None = None):
        try:
            from mteb.models import ModelMeta
        except ImportError:
            raise MissingExtraError("mteb's tasks", "mteb") from None
        if model_name.count("/") != 1 or not all(model_name.split("/")):
            raise ModelError(f"mteb files results as ORGANISATION/MODEL; {model_name!r} is not one")
        self._encoder = encoder
        self._meta = ModelMeta.create_empty(
            overwrites={"name": model_name, "revision": revision or "no_revision_available"}
        )

    @property
    def mteb_model_meta(self) -> Any:
        """Name and revision, as mteb's ``ModelMeta``."""
        return self._meta

    def encode(self, inputs: Iterable[dict[str, Any]], **_: Any) -> NDArray[np.float32]:
        """The (n, d) float32 vectors of the n texts of all batches.

        Args:
            inputs: mteb's loader: batches with a list under "text".

        Raises:
            ModelError: a batch has no text (an image or audio task), or the encoder gave other
                than (n, d) finite numbers.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise ModelError(f"mteb gave {sorted(batch)}, and this encoder reads text alone")
            texts += batch["text"]
        return embed(self._encoder, texts)(texts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The (n, m) cosines of n vectors with m."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The (n,) cosines of n vectors with n others, row by row."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=1)


def _unit(vectors: Any) -> Tensor:
    # mteb gives arrays or tensors, and a vector alone for one row; it wants tensors back.
    rows = torch.as_tensor(vectors, dtype=torch.float32)
    return normalize(rows[None] if rows.ndim == 1 else rows, dim=1)
