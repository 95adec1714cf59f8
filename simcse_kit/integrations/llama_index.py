"""Sentence encoders as an embedding model of LlamaIndex."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import DEFAULT_ENCODER

__all__ = ["SimcseEmbedding"]


class SimcseEmbedding(BaseEmbedding):  # type: ignore[misc]
    """An embedding model for indexes of LlamaIndex (package ``llama-index-core``).

    Args:
        model: Folder or name of an encoder, as for :meth:`SentenceEncoder.load`, or an encoder.
        **options: Fields of ``BaseEmbedding``, such as ``embed_batch_size``.

    Raises:
        ModelError: The encoder cannot be opened.
    """

    _encoder: SentenceEncoder = PrivateAttr()

    def __init__(self, model: str | SentenceEncoder = DEFAULT_ENCODER, **options: Any):
        encoder = model if isinstance(model, SentenceEncoder) else SentenceEncoder.load(model)
        name = encoder.source if model is encoder else model
        super().__init__(**{"model_name": str(name)} | options)
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores the model."""
        return "SimcseEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode_document(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode_query(query).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)
