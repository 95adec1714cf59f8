"""The adaptor for mteb, in the way mteb calls it; with mteb itself where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simcse_kit.errors import MissingExtraError, ModelError
from simcse_kit.evaluation.mteb import MtebEncoder
from tests.evaluation.synthetic import BagOfWords


def test_the_extra_is_named_where_mteb_is_missing(
    encoder: BagOfWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mteb.models", None)
    with pytest.raises(MissingExtraError, match=r"simcse-kit\[mteb\]"):
        MtebEncoder(encoder, "me/model")


class Wrapped(MtebEncoder):
    """Without mteb's record of the model."""

    def __init__(self, encoder: BagOfWords):
        self._encoder = encoder


def test_batches_are_encoded_in_one_call_and_in_order(encoder: BagOfWords) -> None:
    batches = [{"text": ["a b", "c"]}, {"text": ["a b", "d"]}]
    vectors = Wrapped(encoder).encode(batches, task_metadata=None, hf_split="", hf_subset="")
    assert encoder.calls == [["a b", "c", "d"]]
    assert np.allclose(vectors, np.asarray(encoder.encode(["a b", "c", "a b", "d"])))
    with pytest.raises(ModelError, match=r"\['image'\]"):
        Wrapped(encoder).encode([{"image": []}])


def test_similarities_are_cosines_as_tensors(encoder: BagOfWords) -> None:
    wrapped = Wrapped(encoder)
    a, b = torch.randn(3, 5), np.random.default_rng(0).normal(size=(4, 5))
    expected = torch.cosine_similarity(a[:, None], torch.tensor(b)[None], dim=-1)
    assert torch.allclose(wrapped.similarity(a, b), expected.float(), atol=1e-6)
    assert torch.allclose(wrapped.similarity_pairwise(a, b[:3]), expected.diagonal().float())
    assert float(wrapped.similarity(a[0], a[0])) == pytest.approx(1)  # as its summaries ask


def test_mteb_takes_it_for_an_encoder(encoder: BagOfWords) -> None:
    models = pytest.importorskip("mteb.models")
    wrapped = MtebEncoder(encoder, "me/model", "abc")
    assert isinstance(wrapped, models.EncoderProtocol)
    assert wrapped.mteb_model_meta.name == "me/model"
    assert wrapped.mteb_model_meta.revision == "abc"
    with pytest.raises(ModelError, match="ORGANISATION/MODEL"):
        MtebEncoder(encoder, "model")
