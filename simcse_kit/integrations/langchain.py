"""Sentence encoders as embeddings of LangChain."""

from __future__ import annotations

from typing import Unpack

from langchain_core.embeddings import Embeddings

from simcse_kit.encoder.encode_options import EncodeKeywords
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import DEFAULT_ENCODER

__all__ = ["SimcseEmbeddings"]


class SimcseEmbeddings(Embeddings):  # type: ignore[misc]
    """Embeddings for vector stores and retrievers of LangChain (package ``langchain-core``).

    Further keyword arguments are options of :meth:`SentenceEncoder.encode`, such as
    ``normalize=True``.

    Args:
        model: Folder or name of an encoder, as for :meth:`SentenceEncoder.load`, or an encoder.

    Raises:
        ModelError: The encoder cannot be opened.
    """

    def __init__(
        self, model: str | SentenceEncoder = DEFAULT_ENCODER, **options: Unpack[EncodeKeywords]
    ):
        opened = model if isinstance(model, SentenceEncoder) else SentenceEncoder.load(model)
        self.encoder = opened
        self.options = options

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Compute the vectors of n texts with the prompt ``document``, as n lists of numbers."""
        vectors: list[list[float]] = self.encoder.encode_document(texts, **self.options).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Compute the vector of one text with the prompt ``query``."""
        vector: list[float] = self.encoder.encode_query(text, **self.options).tolist()
        return vector
