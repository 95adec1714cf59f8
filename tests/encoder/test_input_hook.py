"""The hook that changes input embeddings: packed and padded, by row, only in its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import Batching, Unpacked
from tests.encoder.conftest import FAMILIES, SENTENCES


def batch(encoder: SentenceEncoder) -> tuple[Tensor, Tensor]:
    rows, _ = encoder.tokenize(SENTENCES)
    return pad_batch(rows, encoder.tokenizer.pad_token_id)


def by_row(states: Tensor, rows: Tensor) -> Tensor:
    """Something else for every row, place and feature."""
    place = torch.arange(states[0].numel()).view(states[0].shape)
    return states * (1 + torch.cos(place + rows.view(-1, 1, 1)))


WAYS = [Batching(packed=True), *(Batching(packed=False, unpacked=way) for way in Unpacked)]


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_packed_equals_unpacked(family: Callable[[str], Path], name: str) -> None:
    encoder = SentenceEncoder.load(family(name), pooling="mean")
    ids, mask = batch(encoder)
    plain = encoder(ids, mask)
    assert encoder.packs
    found, gradient = [], []
    for batching in WAYS:
        encoder.known_batching = batching
        vectors = encoder(ids, mask, alter=by_row)
        encoder.zero_grad()
        (vectors * torch.arange(vectors.numel()).view(vectors.shape).cos()).sum().backward()
        words = encoder.backbone.get_input_embeddings().weight.grad
        found.append(vectors.detach())
        gradient.append(words.clone())
        torch.testing.assert_close(encoder(ids, mask), plain, rtol=0, atol=1e-5)
    for one, other in zip(found[1:], gradient[1:], strict=True):
        torch.testing.assert_close(one, found[0], rtol=0, atol=2e-5)
        torch.testing.assert_close(other, gradient[0], rtol=2e-3, atol=1e-4)
    assert (found[0] - plain).abs().amax(dim=1).min() > 1e-2


def test_only_tokens_are_handed_over_and_each_row_once(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    ids, mask = batch(encoder)
    plain = encoder(ids, mask)
    for batching in WAYS:
        encoder.known_batching = batching
        seen: dict[int, int] = {}

        def note(states: Tensor, rows: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen |= dict.fromkeys(rows.tolist(), states.shape[1])
            return states

        torch.testing.assert_close(encoder(ids, mask, alter=note), plain, rtol=0, atol=1e-5)
        assert seen == dict(enumerate(mask.sum(dim=1).tolist()))


def test_other_threads_get_plain_embeddings(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    ids, mask = batch(encoder)
    plain = encoder(ids, mask).detach()
    other: list[Tensor] = []
    begun = threading.Event()

    def alter(states: Tensor, _: Tensor) -> Tensor:
        # Meanwhile somebody else encodes.
        if not begun.is_set():
            begun.set()
            thread = threading.Thread(target=lambda: other.append(encoder(ids, mask).detach()))
            thread.start()
            thread.join()
        return states * 0

    altered = encoder(ids, mask, alter=alter)
    torch.testing.assert_close(other[0], plain, rtol=0, atol=1e-6)
    assert (altered - plain).abs().max() > 1e-2


def test_nothing_is_left_behind_after_an_error(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    ids, mask = batch(encoder)
    plain = encoder(ids, mask)

    def fail(_: Tensor, __: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        encoder(ids, mask, alter=fail)
    assert encoder(ids, mask).equal(plain)
    assert not any(module._forward_hooks for module in encoder.modules())
