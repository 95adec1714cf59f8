"""Vectors in fewer bits, compared with sentence-transformers, and search over them."""

from __future__ import annotations

import logging
from typing import Any, get_args

import numpy as np
import pytest

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.metrics.quantized_search import top_k_quantized
from simcse_kit.metrics.search import top_k
from simcse_kit.metrics.vector_precision import (
    OutputPrecision,
    dequantize_vectors,
    quantize_vectors,
    vector_dtype,
    vector_ranges,
)

PRECISIONS = get_args(OutputPrecision)


def vectors_of(count: int, dim: int = 60) -> np.ndarray:
    rows = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "float16"])
@pytest.mark.parametrize("dim", [60, 64])
def test_numbers_equal_those_of_sentence_transformers(precision: Any, dim: int) -> None:
    quantize = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    vectors, others = vectors_of(300, dim), vectors_of(200, dim)
    vectors[:, 3] = 0.25  # a dimension without a range
    ranges = vector_ranges(others)
    for ours, theirs in ((None, None), (ranges, ranges)):
        expected = quantize(vectors, precision, ranges=theirs)
        found = quantize_vectors(vectors, precision, ours)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    expected = quantize(vectors, precision, calibration_embeddings=others)
    np.testing.assert_array_equal(quantize_vectors(vectors, precision, ranges), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_type_of_a_vector_is_known_in_advance(precision: Any) -> None:
    codes = quantize_vectors(vectors_of(200), precision)
    kind = vector_dtype(precision, 60)
    assert (codes.dtype, codes.shape[1:]) == (kind.base, kind.shape)


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8"])
def test_converting_back_is_near(precision: Any) -> None:
    vectors = vectors_of(200)
    ranges = vector_ranges(vectors)
    codes = quantize_vectors(vectors, precision, ranges)
    np.testing.assert_allclose(dequantize_vectors(codes, precision, 60, ranges), vectors, atol=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_search_with_the_original_vectors_finds_nearly_all_neighbours(precision: Any) -> None:
    keys, queries = vectors_of(20_000), vectors_of(40)
    ranges = vector_ranges(keys)
    codes = quantize_vectors(keys, precision, ranges)
    _, exact = top_k(queries, keys, 10)
    options: dict[str, Any] = {"precision": precision, "ranges": ranges}
    scores, rows = top_k_quantized(queries, codes, 10, **options, originals=keys, multiplier=200)
    share = np.mean([len({*a} & {*b}) / 10 for a, b in zip(rows, exact, strict=True)])
    assert share > (0.85 if precision.endswith("binary") else 0.99)
    np.testing.assert_allclose(scores[0], keys[rows[0]] @ queries[0], atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    _, without = top_k_quantized(queries, codes, 10, **options)
    plain = np.mean([len({*a} & {*b}) / 10 for a, b in zip(without, exact, strict=True)])
    assert plain <= share


def test_bits_rank_as_in_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.util.quantization import semantic_search_faiss as search

    pytest.importorskip("faiss")
    keys, queries = vectors_of(500), vectors_of(20)
    codes = quantize_vectors(keys, "ubinary")
    found, _ = search(queries, codes, corpus_precision="ubinary", top_k=1, rescore_multiplier=500)
    _, rows = top_k_quantized(queries, codes, 1, precision="ubinary", multiplier=500)
    assert rows[:, 0].tolist() == [hits[0]["corpus_id"] for hits in found]


def test_wrong_input_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    vectors = vectors_of(4)
    with pytest.raises(ConfigError, match="'int4'; allowed"):
        quantize_vectors(vectors, "int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\(2, 59\).*give \(2, 60\)"):
        quantize_vectors(vectors, "int8", np.ones((2, 59)))
    with pytest.raises(ConfigError, match="not finite"):
        quantize_vectors(vectors, "int8", np.full((2, 60), np.nan))
    with pytest.raises(DataError, match="largest of float16"):
        quantize_vectors(vectors * 1e6, "float16")
    with pytest.raises(ConfigError, match="need the ranges"):
        dequantize_vectors(vectors, "int8", 60)
    with pytest.raises(ConfigError, match=r"not ubinary vectors of 60.*give \(m, 8\)"):
        top_k_quantized(vectors, vectors, 1, precision="ubinary")
    codes = quantize_vectors(vectors, "ubinary")
    for k, multiplier in ((5, 1), (0, 1), (1, 0)):
        with pytest.raises(ConfigError, match=r"the best|multiplier"):
            top_k_quantized(vectors, codes, k, precision="ubinary", multiplier=multiplier)
    with caplog.at_level(logging.WARNING):
        quantize_vectors(vectors, "int8")
    assert "come from 4 vectors only" in caplog.text
