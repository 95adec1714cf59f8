"""ESimCSE: repetition, the momentum encoder's keys, and the queue through steps and resumes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.esimcse import ESimCSE, ESimCSEConfig, repeat_tokens
from simcse_kit.training.batching.gradient_cache import GradientCache
from tests.contrastive import info_nce_loss
from tests.methods.test_simcse import ANCHORS, POSITIVES, batch_of

PAD, CLS, SEP = 0, 2, 3


def build(folder: Path, **options: Any) -> ESimCSE:
    torch.manual_seed(0)
    method = ESimCSE(SentenceEncoder.load(folder), ESimCSEConfig(**options))
    return method.train()


def step(method: ESimCSE, batch: dict[str, Tensor], seed: int, progress: float = 0.5) -> float:
    torch.manual_seed(seed)
    loss = method(**batch).loss
    torch.autograd.backward(loss)
    with torch.no_grad():
        for weight in method.parameters():
            if weight.grad is not None:
                weight -= 0.05 * weight.grad
    method.zero_grad()
    method.after_step(progress)
    return float(loss.detach())


# ------------------------------------------------------------------ repetition


def rows_of(lengths: list[int]) -> tuple[Tensor, Tensor]:
    longest = max(lengths) + 2
    ids, mask = torch.zeros(len(lengths), longest).long(), torch.zeros(len(lengths), longest).long()
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = torch.tensor([CLS, *range(10, 10 + length), SEP])
        mask[row, : length + 2] = 1
    return ids, mask


def repeated(ids: Tensor, mask: Tensor, rate: float = 0.32, most: int | None = None) -> Any:
    return repeat_tokens(ids, mask, rate=rate, special_ids=[PAD, CLS, SEP], pad_id=PAD, most=most)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_said_twice_in_their_place(seed: int) -> None:
    ids, mask = rows_of([0, 1, 2, 5, 25])
    before = ids.clone()
    torch.manual_seed(seed)
    longer, there = repeated(ids, mask)
    assert torch.equal(ids, before)
    for old, seen, new, now in zip(ids, mask, longer, there, strict=True):
        got = new[now.bool()].tolist()
        assert [x for i, x in enumerate(got) if i == 0 or got[i - 1] != x] == old[
            seen.bool()
        ].tolist()
        assert got.count(CLS) == got.count(SEP) == 1
        assert not new[~now.bool()].any()
        count = int(seen.sum()) - 2
        assert len(got) - 2 - count <= min(count, max(2, int(0.32 * count)))


def test_numbers_of_repetitions_are_uniform_and_so_are_places() -> None:
    ids, mask = rows_of([25] * 4000)
    torch.manual_seed(0)
    longer, there = repeated(ids, mask)
    extra = there.sum(1) - mask.sum(1)
    shares = torch.bincount(extra, minlength=9) / 4000
    assert len(shares) == 9  # 0 to int(0.32 * 25) = 8
    torch.testing.assert_close(shares, torch.full((9,), 1 / 9), atol=0.02, rtol=0)
    said = torch.bincount(longer.flatten(), minlength=35)[10:35] / 4000 - 1
    torch.testing.assert_close(said, torch.full((25,), 4 / 25), atol=0.03, rtol=0)


def test_no_row_outgrows_the_positions() -> None:
    ids, mask = rows_of([20, 19, 3])
    torch.manual_seed(0)
    longer, there = repeated(ids.repeat(20, 1), mask.repeat(20, 1), rate=1.0, most=22)
    assert there.sum(1).max() == 22
    assert longer.shape[1] == 22


def test_the_views_are_the_sentence_the_longer_one_and_the_key(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir)
    given = Batch(**batch_of(method.encoder, ANCHORS))
    torch.manual_seed(2)
    laid = method.layout(given)
    assert laid.shape == (4, 3)
    assert torch.equal(laid.input_ids[:, 0], laid.input_ids[:, 2])
    assert (laid.attention_mask[:, 1].sum(1) >= given.attention_mask[:, 0].sum(1)).all()
    assert not torch.equal(laid.input_ids[:, 0], laid.input_ids[:, 1])
    assert torch.equal(laid.text_ids, given.text_ids.expand(4, 3))
    torch.manual_seed(2)
    assert torch.equal(method.layout(given).input_ids, laid.input_ids)
    plain = method.eval().layout(given)
    assert torch.equal(plain.input_ids[:, 0], plain.input_ids[:, 1])


# ------------------------------------------------------------------ keys and queue


def test_the_loss_is_info_nce_with_the_keys_of_earlier_batches(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, temperature=0.1, queue_size=6).eval()
    first, second = (batch_of(method.encoder, texts) for texts in (ANCHORS, POSITIVES))
    second["text_ids"] = second["text_ids"] + 100
    assert method.head is not None

    def vectors(texts: list[str], encoder: Any) -> Tensor:
        assert method.head is not None
        return method.head(encoder.encode(texts, to="torch")).detach()

    def keys_of(batch: dict[str, Tensor]) -> Tensor:
        laid = method.layout(Batch(**batch))
        ids, mask = laid.input_ids[:, 2], laid.attention_mask[:, 2]
        return method.embed(ids, mask, torch.full((4,), 2))

    torch.testing.assert_close(
        method(**first).loss,
        info_nce_loss(*[vectors(ANCHORS, method.encoder)] * 2, temperature=0.1),
    )
    keys = keys_of(first)
    assert not keys.requires_grad
    assert method.queue is not None
    method.queue.push(keys, first["text_ids"][:, 0])
    method.queue.advance()
    h = vectors(POSITIVES, method.encoder)
    # four keys for four rows: one further negative a row
    expected = info_nce_loss(h, h, vectors(ANCHORS, method.encoder)[:, None], temperature=0.1)
    torch.testing.assert_close(method(**second).loss, expected)
    # the same sentences again: their own keys are not negatives
    torch.testing.assert_close(
        method(**first).loss,
        info_nce_loss(
            *[vectors(ANCHORS, method.encoder)] * 2,
            vectors(ANCHORS, method.encoder)[:, None],
            temperature=0.1,
            anchor_ids=first["text_ids"][:, 0],
            positive_ids=first["text_ids"][:, 0],
            negative_ids=first["text_ids"],
        ),
    )


def test_keys_have_no_dropout_and_the_head_that_is_trained(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir)
    batch = batch_of(method.encoder, ANCHORS)
    assert method.momentum is not None
    assert method.head is not None
    ids, mask = batch["input_ids"][:, 0], batch["attention_mask"][:, 0]
    one, other = (method.embed(ids, mask, torch.full((4,), 2)) for _ in range(2))
    assert torch.equal(one, other)
    with torch.no_grad():
        for weight in method.encoder.parameters():
            weight += 0.1  # the momentum encoder does not see it yet
        for weight in method.head.parameters():
            weight *= 2  # the head counts at once
    expected = method.head(method.momentum.copy.eval()(ids, mask))
    torch.testing.assert_close(method.embed(ids, mask, torch.full((4,), 2)), expected)
    assert not torch.allclose(expected, one)


def test_the_momentum_encoder_follows_after_each_step(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, momentum=0.9)
    assert method.momentum is not None
    name = "backbone.encoder.layer.0.attention.self.query.weight"
    start = method.encoder.state_dict()[name].clone()
    step(method, batch_of(method.encoder, ANCHORS), seed=0)
    now = method.encoder.state_dict()[name]
    assert not torch.equal(now, start)
    torch.testing.assert_close(method.momentum.copy.state_dict()[name], 0.9 * start + 0.1 * now)


def test_the_queue_keeps_the_newest_and_takes_nothing_from_evaluations(
    tiny_encoder_dir: Path,
) -> None:
    method = build(tiny_encoder_dir, queue_size=6)
    assert method.queue is not None
    batch = batch_of(method.encoder, ANCHORS)
    with torch.no_grad():  # as the held-out loss is taken
        assert method(**batch).logs["queue"] == 0
    method.eval()(**batch)
    method.train().after_step(0.0)
    assert len(method.queue) == 0
    for count in (4, 6, 6):
        step(method, batch, seed=count)
        assert len(method.queue) == count
    logs = method(**batch).logs
    assert logs["queue"] == 6
    assert logs["ln_batch"] == pytest.approx(math.log(4 + 6))


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(tiny_encoder_dir: Path) -> None:
    batches = [batch_of(build(tiny_encoder_dir).encoder, texts) for texts in (ANCHORS, POSITIVES)]
    whole, first = (build(tiny_encoder_dir, queue_size=6) for _ in range(2))
    losses = [step(whole, batches[i % 2], seed=i) for i in range(5)]
    assert losses[:3] == [step(first, batches[i % 2], seed=i) for i in range(3)]
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    second = build(tiny_encoder_dir, queue_size=6)
    second.load_state_dict(state, strict=True)
    assert losses[3:] == [step(second, batches[i % 2], seed=i) for i in range(3, 5)]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_chunks_of_nothing_but_keys_do(tiny_encoder_dir: Path, tokens: int) -> None:
    method = build(tiny_encoder_dir, dropout=0.0).double()
    batch = batch_of(method.encoder, ANCHORS)
    outputs = []
    for forward in (lambda m, b: m(**vars(b)), GradientCache(tokens)):
        torch.manual_seed(3)
        method.zero_grad()
        output = forward(method, Batch(**batch))
        torch.autograd.backward(output.loss)
        grads = [w.grad.clone() for w in method.parameters() if w.grad is not None]
        assert method.queue is not None
        outputs.append((output.loss.detach(), method.queue._pending.pop()[0], *grads))
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_without_queue_there_is_no_second_encoder(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, queue_size=0)
    assert method.momentum is None
    assert not any("momentum" in name for name in method.state_dict())
    batch = batch_of(method.encoder, ANCHORS)
    assert method.layout(Batch(**batch)).shape == (4, 2)
    step(method, batch, seed=0)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"method.queue_size is 8, less than a batch of 9;"):
        check_batch(ESimCSE, ESimCSEConfig(queue_size=8), DataSpec("texts"), 9)
    for options in ({"queue_size": -1}, {"dup_rate": 1.5}, {"momentum": 2.0}, {"head": "big"}):
        with pytest.raises(ConfigError, match=f"method.{next(iter(options))}"):
            build_config("esimcse", options)
