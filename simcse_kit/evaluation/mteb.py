"""Adapter of encoders for mteb, for its tasks and the protocol of its leaderboard.

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
from simcse_kit.utils.prompt_choice import Role

__all__ = ["MtebEncoder"]


_ROLES: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}


class MtebEncoder:
    """An encoder with the interface of mteb 2 (its ``EncoderProtocol``).

    All texts of a task are encoded in one call, each distinct one once, in place of the batches of
    mteb's loader.

    Args:
        encoder: an object with ``encode``, such as a
            :class:`~simcse_kit.encoder.encoder.SentenceEncoder`.
        model_name: name for mteb's results, "ORGANISATION/MODEL".
        revision: revision of the model for mteb's results.

    Raises:
        MissingExtraError: mteb is not installed.
        ModelError: the name has another form.
    """

    def __init__(self, encoder: Encoder, model_name: str, revision: str | None = None):
        try:
            from mteb.models import ModelMeta
        except ImportError:
            raise MissingExtraError("mteb's tasks", "mteb") from None
        if model_name.count("/") != 1 or not all(model_name.split("/")):
            raise ModelError(f"mteb needs a name ORGANISATION/MODEL, not {model_name!r}")
        self._encoder = encoder
        self._meta = ModelMeta.create_empty(
            overwrites={"name": model_name, "revision": revision or "no_revision_available"}
        )

    @property
    def mteb_model_meta(self) -> Any:
        """Name and revision in mteb's ``ModelMeta``."""
        return self._meta

    def encode(
        self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_: Any
    ) -> NDArray[np.float32]:
        """Compute the (n, d) float32 vectors of the n texts of all batches.

        Args:
            inputs: batches of mteb's loader, with a list of strings at "text".
            prompt_type: mteb's ``PromptType``: whether the texts are queries or documents.

        Raises:
            ModelError: a batch has no text (an image or audio task), or the encoder did not return
                (n, d) finite vectors.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise ModelError(f"mteb gave {sorted(batch)}; this encoder only reads text")
            texts += batch["text"]
        kind = getattr(prompt_type, "value", None)
        role = _ROLES.get(kind) if isinstance(kind, str) else None
        return embed(self._encoder, texts, role=role)(texts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute the (n, m) cosines of n vectors with m others."""
        rows = _unit(embeddings1)
        return rows @ _unit(embeddings2).to(rows.device).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Compute the (n,) cosines of n vectors with n others, row by row."""
        rows = _unit(embeddings1)
        return (rows * _unit(embeddings2).to(rows.device)).sum(dim=1)


def _unit(vectors: Any) -> Tensor:
    # mteb passes arrays or tensors, and one-dimensional ones for a single row; it expects tensors.
    rows = torch.as_tensor(vectors, dtype=torch.float32)
    return normalize(rows[None] if rows.ndim == 1 else rows, dim=1)
