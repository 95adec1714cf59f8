"""Vectors of anchors and candidates, with the prompts of queries and documents."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ModelError
from simcse_kit.utils.arrays import on_host
from simcse_kit.utils.prompt_choice import PromptChoice, Role, encode_as, has_role_prompts

__all__ = ["UnitEncoder", "vectors_of"]


class UnitEncoder(Protocol):
    """Encoder of n texts into n unit vectors, such as a SentenceEncoder."""

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        """Encode sentences into an (n, d) array."""
        ...


def vectors_of(
    encoder: UnitEncoder,
    anchors: list[str],
    candidates: list[str],
    prompts: PromptChoice,
    pairs: bool,
    progress: bool,
) -> NDArray[np.float32]:
    """Encode the anchors, then the candidates; of pairs perhaps with different prompts."""

    def encoded(texts: list[str], role: Role | None) -> NDArray[np.float32]:
        return _checked(
            encode_as(encoder, texts, role, prompts, normalize=True, progress=progress), texts
        )

    if pairs and has_role_prompts(encoder, prompts):
        return np.concatenate([encoded(anchors, "query"), encoded(candidates, "document")])
    return encoded([*anchors, *candidates], None)


def _checked(output: Any, texts: list[str]) -> NDArray[np.float32]:
    vectors = np.asarray(on_host(output), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ModelError(
            f"the encoder gave vectors of shape {vectors.shape} for {len(texts)} texts, or some "
            "that are not finite"
        )
    return vectors
