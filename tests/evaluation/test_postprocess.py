"""Post-processing in `simcse eval --post`, and a map saved with an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from simcse_kit import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.postprocess import (
    Postprocessed,
    Trials,
    as_dense,
    fit,
    make,
    parse_postprocesses,
    try_maps,
)
from tests.evaluation.synthetic import BagOfWords

ROOT = Path(__file__).parents[2]
TEXTS = (ROOT / "data/sentences.txt").read_text("utf-8").split("\n")[:300]


def test_calls_are_read_and_bad_ones_refused(encoder: BagOfWords) -> None:
    calls = parse_postprocesses("standardize,whitening(k=2),abtt(1)")
    assert list(calls) == ["standardize", "whitening(k=2)", "abtt(1)"]
    found = fit(encoder, TEXTS)
    for bad in ("whitening(2.5)", "standardize(k=3)", "whitening(n=3)", "abtt(k=99999)"):
        with pytest.raises(ConfigError, match=r"whitening|standardize|abtt"):
            make(parse_postprocesses(bad)[bad], found)
    with pytest.raises(ConfigError, match="known: standardize, whitening, abtt"):
        parse_postprocesses("bleach")


def test_versions_share_what_was_encoded(encoder: BagOfWords) -> None:
    calls = parse_postprocesses("standardize,abtt(1)")
    versions = dict(try_maps(encoder, Trials(calls, TEXTS)))
    before = len(encoder.calls)
    vectors = [version.encode(TEXTS[:9]) for version in versions.values()]
    assert len(encoder.calls) == before + 1
    assert not np.allclose(*vectors)


@pytest.mark.long
@pytest.mark.parametrize("normalize", [False, True])
def test_a_kept_map_gives_the_labs_vectors_here_and_in_sentence_transformers(
    tmp_path: Path, normalize: bool
) -> None:
    encoder = SentenceEncoder.load("mini")
    encoder.normalize = normalize
    affine = make(parse_postprocesses("whitening(k=32)")["whitening(k=32)"], fit(encoder, TEXTS))
    expected = Postprocessed(encoder, affine).encode(TEXTS[:20])
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    encoder.add_stage(as_dense(affine))
    encoder.save(tmp_path / "kept")
    for opened in (
        SentenceEncoder.load(tmp_path / "kept"),
        SentenceTransformer(str(tmp_path / "kept")),
    ):
        assert np.allclose(np.asarray(opened.encode(TEXTS[:20])), expected, atol=2e-4)
    before = encoder.encode(TEXTS[:20], normalize=False)
    second = make(parse_postprocesses("abtt(1)")["abtt(1)"], fit(encoder, TEXTS))
    encoder.add_stage(as_dense(second))
    after = encoder.encode(TEXTS[:20], normalize=False)
    assert np.allclose(after, second(torch.from_numpy(before)), atol=1e-3)
    with pytest.raises(ModelError, match="this encoder gives 32"):
        encoder.add_stage(as_dense(affine))
