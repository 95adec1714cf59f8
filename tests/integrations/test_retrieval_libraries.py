"""Embeddings of LangChain and LlamaIndex.

Where these packages are not installed, base classes with the same abstract methods stand in.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from simcse_kit.encoder.encoder import SentenceEncoder

TEXTS = ["a cat sat .", "the dog ran .", "birds"]


class Embeddings(ABC):
    """The abstract methods of langchain_core.embeddings.Embeddings."""

    @abstractmethod
    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    @abstractmethod
    def embed_query(self, text: str) -> list[float]: ...


class BaseEmbedding(BaseModel, ABC):
    """The fields and methods of llama_index's BaseEmbedding that are used here."""

    model_name: str = "unknown"
    embed_batch_size: int = 10

    @abstractmethod
    def _get_text_embedding(self, text: str) -> list[float]: ...

    @abstractmethod
    def _get_query_embedding(self, query: str) -> list[float]: ...

    @abstractmethod
    async def _aget_query_embedding(self, query: str) -> list[float]: ...

    def get_text_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)

    def get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embedding(text)

    def get_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> list[float]:
        return await self._aget_query_embedding(query)


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean", device="cpu")


def adapter(name: str, base: type, place: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of an adapter, with a stand-in for a base class that is not installed."""
    if find_spec(place.partition(".")[0]) is None:
        parts = place.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(
                sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end]))
            )
        setattr(sys.modules[place], base.__name__, base)
    monkeypatch.delitem(sys.modules, f"simcse_kit.integrations.{name}", raising=False)
    module = import_module(f"simcse_kit.integrations.{name}")
    monkeypatch.delitem(sys.modules, f"simcse_kit.integrations.{name}")
    return module


def test_langchain_gets_the_vectors_of_the_encoder(
    encoder: SentenceEncoder, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = adapter("langchain", Embeddings, "langchain_core.embeddings", monkeypatch)
    embeddings = module.SimcseEmbeddings(encoder, normalize=True)
    assert isinstance(embeddings, module.Embeddings)
    expected = encoder.encode(TEXTS, normalize=True)
    assert np.allclose(embeddings.embed_documents(TEXTS), expected)
    assert embeddings.embed_documents([]) == []
    assert np.allclose(embeddings.embed_query(TEXTS[0]), expected[0])
    encoder.prompts = {"query": "the "}
    assert np.allclose(embeddings.embed_query("birds"), encoder.encode("the birds", normalize=True))
    assert len(module.SimcseEmbeddings(str(tiny_encoder_dir)).embed_query("a cat")) == 32


def test_llama_index_gets_the_vectors_of_the_encoder(
    encoder: SentenceEncoder, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "llama_index.core.base.embeddings.base"
    module = adapter("llama_index", BaseEmbedding, place, monkeypatch)
    embedding = module.SimcseEmbedding(encoder, embed_batch_size=2)
    assert isinstance(embedding, module.BaseEmbedding)
    assert (embedding.model_name, embedding.embed_batch_size) == (str(tiny_encoder_dir), 2)
    expected = encoder.encode(TEXTS)
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), expected)
    assert np.allclose(embedding.get_text_embedding(TEXTS[1]), expected[1])
    assert np.allclose(embedding.get_query_embedding(TEXTS[2]), expected[2])
    assert np.allclose(asyncio.run(embedding.aget_query_embedding(TEXTS[2])), expected[2])
    encoder.prompts = {"query": "the "}
    assert np.allclose(embedding.get_query_embedding("birds"), encoder.encode("the birds"))
    opened = module.SimcseEmbedding(str(tiny_encoder_dir))
    assert opened.model_name == str(tiny_encoder_dir)
    assert opened.class_name() == "SimcseEmbedding"
