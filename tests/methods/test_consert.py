"""ConSERT: which view gets which augmentation, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.consert import ConSERT, perturbation
from simcse_kit.training.batching.gradient_cache import GradientCache
from tests.methods.test_cluster_methods import batch_of, build
from tests.small_data import sentences


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean")


def inputs_of(method: ConSERT, batch: Batch) -> list[Tensor]:
    """What the first layer got, (tokens, d), for each row of each view."""
    seen: dict[int, Tensor] = {}
    encode = method.encoder.forward

    def spy(ids: Tensor, mask: Tensor, *, alter: Any = None) -> Tensor:
        def note(states: Tensor, rows: Tensor) -> Tensor:
            states = states if alter is None else alter(states, rows)
            seen.update(zip(rows.tolist(), states.detach(), strict=True))
            return states

        return encode(ids, mask, alter=note)

    method.encoder.forward = spy  # type: ignore[assignment, method-assign]
    try:
        laid_out = method.layout(batch)
        method.embed(*laid_out.rows(), laid_out.view_numbers())
    finally:
        method.encoder.forward = encode  # type: ignore[method-assign]
    return [seen[row] for row in range(len(seen))]


def test_each_view_has_its_own_augmentations(encoder: SentenceEncoder) -> None:
    batch = batch_of(encoder, [text + " a big red dog" for text in sentences(6)])
    plain = inputs_of(build(encoder, "consert", views=["none", "none"]), batch)[::2]
    options = {"views": ["cutoff(0.5)", "feature_cutoff(0.25)|noise(0.001)"]}
    rows = inputs_of(build(encoder, "consert", **options), batch)
    for before, first, second in zip(plain, rows[::2], rows[1::2], strict=True):
        cut = (first == 0).all(dim=1)
        assert int(cut.sum()) == len(first) // 2
        torch.testing.assert_close(first[~cut], before[~cut])
        gone = second.abs().amax(dim=0) < 0.01
        assert int(gone.sum()) == 8
        torch.testing.assert_close(second[:, ~gone], before[:, ~gone], rtol=0, atol=0.01)
        assert not second[:, ~gone].equal(before[:, ~gone])


def test_shuffled_tokens_are_shuffled_positions(encoder: SentenceEncoder) -> None:
    method = build(encoder, "consert", views=["none", "shuffle"])
    batch = batch_of(encoder, sentences(6))
    torch.manual_seed(0)
    laid_out = method.layout(batch)
    ids, mask = laid_out.input_ids[:, 1], laid_out.attention_mask[:, 1]
    original = batch.input_ids[:, 0]
    assert laid_out.input_ids[:, 0].equal(original)
    assert not ids.equal(original)
    assert ids.sort(dim=1).values.equal(original.sort(dim=1).values)
    # the position that each token of the sentence has got: no token is there twice
    positions = (original.unsqueeze(2) == ids.unsqueeze(1)).float().argmax(dim=2)
    once = mask.bool()
    positions[~once] = torch.arange(ids.shape[1]).expand_as(positions)[~once]
    states = encoder.backbone(
        input_ids=original, attention_mask=mask, position_ids=positions
    ).last_hidden_state
    means = (states * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(encoder(ids, mask), means, rtol=0, atol=1e-5)


def test_loss_is_nt_xent_at_the_temperature_of_the_paper(encoder: SentenceEncoder) -> None:
    method = build(encoder, "consert")
    embeddings = torch.randn(5, 2, 32, generator=torch.Generator().manual_seed(0))
    batch = batch_of(encoder, sentences(5)).repeat_views(2)
    expected = nt_xent(embeddings[:, 0], embeddings[:, 1], temperature=0.1)
    torch.testing.assert_close(method.loss(embeddings, batch).loss, expected)


def test_nothing_is_random_in_evaluation_mode(encoder: SentenceEncoder) -> None:
    method = build(encoder, "consert").eval()
    batch = batch_of(encoder, sentences(5)).repeat_views(2)
    rows = method.embed(*method.layout(batch).rows(), batch.view_numbers()).view(5, 2, -1)
    torch.testing.assert_close(rows[:, 0], rows[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 10**6])
def test_chunks_draw_the_same_when_they_are_embedded_again(
    encoder: SentenceEncoder, kept: int
) -> None:
    """All graphs kept, or every chunk embedded twice: the gradients are the same."""
    views = ["shuffle|cutoff(0.3)", "dropout(0.2)|noise(0.5)"]
    method = build(encoder, "consert", views=views, dropout=0.1).double()
    batch = batch_of(encoder, sentences(6))
    found = []
    for kept_tokens in (kept, 30):
        torch.manual_seed(3)
        method.zero_grad()
        cache = GradientCache(24, kept_tokens=kept_tokens)
        torch.autograd.backward(cache(method, batch).loss)
        found.append({n: w.grad.clone() for n, w in method.named_parameters() if w.requires_grad})
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_dropout_of_the_encoder_is_off_as_in_the_paper(encoder: SentenceEncoder) -> None:
    build(encoder, "consert", dropout=None)
    assert max(encoder.dropouts().values()) > 0
    build(encoder, "consert")
    assert set(encoder.dropouts().values()) == {0.0}


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (["shufle", "none"], r"method.views: unknown augmentation 'shufle' \(did you mean 'shuf"),
        (["cutoff(2)", "none"], "method.views: cutoff: the rate is 2; it must be between 0 and 1"),
        (["noise(0)", "none"], "noise: the deviation is 0; it must be above 0"),
        (["shuffle(0.1)", "none"], "shuffle does not take these arguments"),
        (["cutoff(", "none"], r"method.views is 'cutoff\(', which cannot be read"),
        (["shuffle"], "method.views"),
        (["a"] * 3, "method.views"),
    ],
)
def test_unknown_augmentations_are_refused(views: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_config("consert", {"views": views})
    assert "\n" not in str(caught.value)


def test_names_read_alike() -> None:
    torch.manual_seed(0)
    states = torch.randn(3, 10, 4)
    found = []
    for text in ("cutoff(0.2)", "token_cutoff(rate=0.2)", "none|cutoff(0.2)"):
        torch.manual_seed(1)
        found.append(perturbation(text, what="views")(states))
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])
