"""Every pooling against one sentence at a time, pooled by hand from AutoModel's hidden states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.pooling import LAYER_POOLINGS, POOLINGS, check_pooling, pool
from simcse_kit.errors import ConfigError
from tests.encoder.conftest import SENTENCES, naive

CONCATENATED = ["max+mean", "cls_before_pooler+last_token"]


# `mask` needs a template: see test_template.py.
@pytest.mark.parametrize("pooling", [*(name for name in POOLINGS if name != "mask"), *CONCATENATED])
def test_against_naive(family: Callable[[str], Path], pooling: str) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling=pooling)
    expected = naive(family("bert"), pooling, SENTENCES).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-3  # the sentences do differ
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    for batch_size in (1, 3):
        others = encoder.encode(SENTENCES, batch_size=batch_size)
        np.testing.assert_allclose(others, expected, atol=1e-5)


def test_embedding_layer_is_not_layer_one() -> None:
    states = [torch.full((1, 2, 3), float(value)) for value in (100, 1, 2, 3)]
    mask = torch.ones(1, 2)
    assert pool("first_last_mean", states, mask).tolist() == [[2.0] * 3]
    assert pool("last_two_mean", states, mask).tolist() == [[2.5] * 3]


def test_padding_counts_for_nothing() -> None:
    torch.manual_seed(0)
    states = [torch.randn(2, 5, 4) for _ in range(3)]
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    for name in (*POOLINGS, *CONCATENATED):
        before = pool(name, states, mask)
        changed = [state.clone() for state in states]
        for state in changed:
            state[0, 3:] = 1e6
        assert torch.equal(pool(name, changed, mask), before), name
        rows = [pool(name, [s[i : i + 1, : m.sum()] for s in states], m[None, : m.sum()])
                for i, m in enumerate(mask)]  # fmt: skip
        torch.testing.assert_close(torch.cat(rows), before)


def test_only_layer_poolings_ask_for_all_layers(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(*args: Any, all_layers: bool, **options: Any) -> list[torch.Tensor]:
        asked.append(all_layers)
        return packed_states(*args, all_layers=all_layers, **options)

    monkeypatch.setattr("simcse_kit.encoder.model.packed_states", watched)
    try:
        for name in ("mean", "cls_before_pooler", *LAYER_POOLINGS):
            bert.pooling = name
            bert.encode("a cat")
    finally:
        bert.pooling = "mean"
    assert asked == [False, False, True, True]


def test_unknown_pooling(family: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"unknown pooling 'meen' \(did you mean 'mean'\?\)"):
        check_pooling("meen")
    with pytest.raises(ConfigError, match=r"pooling 'mean\+cls': 'cls' cannot be conc"):
        SentenceEncoder.load(family("bert"), pooling="mean+cls")
    with pytest.raises(ConfigError, match="first_last_mean"):
        SentenceEncoder.load(family("bert"), pooling="avg")
