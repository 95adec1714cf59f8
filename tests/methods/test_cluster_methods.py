"""SwAV and prototypical contrast: their state, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.prototypes import sinkhorn, swapped_prediction
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.methods.prototypical import PrototypicalContrast, one_cluster_a_text
from simcse_kit.methods.swav import SwAV
from tests.small_data import sentences

SMALL = {"queue_size": 60, "clusters": [3, 5], "every": 1, "warmup": 0.0, "momentum": 0.9}


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean")


def build(encoder: SentenceEncoder, name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    method: Method = METHODS.resolve(name)(encoder, build_config(name, options))
    return method.train()


def batch_of(encoder: SentenceEncoder, texts: list[str]) -> Batch:
    encoded = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return Batch(
        encoded["input_ids"].unsqueeze(1),
        encoded["attention_mask"].unsqueeze(1),
        torch.tensor([known[text] for text in texts]).unsqueeze(1),
        torch.ones(len(texts), 1, dtype=torch.bool),
    )


def step(method: Any, batch: Batch, progress: float = 0.5) -> Any:
    output = method(**{k: v for k, v in vars(batch).items() if v is not None})
    method.after_step(progress)
    return output


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loose(batch: Batch) -> Batch:
    return batch.repeat_views(2)


# ------------------------------------------------------------------ SwAV


def test_swav_loss_is_the_swapped_prediction_of_its_features(encoder: SentenceEncoder) -> None:
    method: SwAV = build(encoder, "swav", prototypes=6, hidden=16, dim=8, frozen=0.0).eval()
    embeddings = normal(5, 2, 32)
    batch = loose(batch_of(encoder, sentences(5)))
    features = method.head(embeddings.flatten(0, 1)).view(5, 2, 8)
    features = torch.nn.functional.normalize(features, dim=2)
    weight = method.prototypes.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(6))
    scores = [features[:, view] @ weight.T for view in range(2)]
    expected = swapped_prediction(*scores, *map(sinkhorn, scores))
    torch.testing.assert_close(method.loss(embeddings, batch).loss, expected)


def test_prototypes_stand_still_at_first_and_keep_their_length(encoder: SentenceEncoder) -> None:
    method: SwAV = build(encoder, "swav", prototypes=6, hidden=16, frozen=0.25)
    batch = batch_of(encoder, sentences(8))
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.1)
    moved = []
    for number in range(4):
        before = method.prototypes.weight.detach().clone()
        optimizer.zero_grad()
        method(**{k: v for k, v in vars(batch).items() if v is not None}).loss.backward()
        optimizer.step()
        method.after_step((number + 1) / 8)
        moved.append(not method.prototypes.weight.equal(before))
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(6))
    assert moved == [False, False, True, True]


def test_queue_of_swav_serves_the_assignment_once_it_is_full(encoder: SentenceEncoder) -> None:
    options = {"prototypes": 6, "hidden": 16, "queue_size": 16, "queue_start": 0.5}
    method: SwAV = build(encoder, "swav", **options)
    batch = batch_of(encoder, sentences(8))
    sizes = []
    for progress in (0.4, 0.6, 0.7, 0.8):
        step(method, batch, progress)
        sizes.append([len(queue) for queue in method._queues()])
    # after the first step the progress is below the start
    assert sizes == [[0, 0], [0, 0], [8, 8], [16, 16]]
    scores = normal(8, 6).tanh()
    features, _ = method._queues()[1].contents()
    everything = torch.cat([features @ method.prototypes.weight.T, scores]).detach()
    torch.testing.assert_close(method._codes(scores, 1), sinkhorn(everything)[-8:])
    with torch.no_grad():
        step(method, batch)
    assert not method._queues()[0]._pending


def test_swav_has_no_negatives_and_no_reference() -> None:
    contrast = build_config("swav", {"queue_size": 64}).contrast(DataSpec("texts"), 8)
    assert contrast == Contrast(0, queue=64, needed=False)
    assert contrast.reference_loss is None


# ------------------------------------------------------------------ prototypical


def test_queries_get_gradients_and_keys_do_not(encoder: SentenceEncoder) -> None:
    method: PrototypicalContrast = build(encoder, "prototypical", **SMALL)
    batch = loose(batch_of(encoder, sentences(4)))
    embeddings = method.embed(*batch.rows(), batch.view_numbers()).view(4, 2, -1)
    keys = method.embed(
        batch.input_ids[:, 1], batch.attention_mask[:, 1], torch.ones(4, dtype=torch.int64)
    )
    assert not keys.requires_grad
    # without dropout, so the same each time
    torch.testing.assert_close(embeddings[:, 1], keys)
    step(method, batch).loss.backward()
    assert all(weight.grad is None for weight in method.momentum.parameters())
    assert all(weight.grad is not None for weight in method.head.parameters())


def test_clusters_come_when_there_are_keys_enough(encoder: SentenceEncoder) -> None:
    method: PrototypicalContrast = build(encoder, "prototypical", **SMALL | {"warmup": 0.3})
    texts = sentences(96)
    logs = []
    for number in range(8):
        batch = batch_of(encoder, texts[12 * number : 12 * number + 12])
        logs.append(step(method, batch, (number + 1) / 10).logs)
    # 50 keys are there after five steps, the warm-up is over after three
    assert ["prototype_loss" in log for log in logs] == [False] * 5 + [True] * 3
    assert logs[-1]["queue"] == 60
    assert logs[-1]["ln_batch"] == pytest.approx(math.log(72))
    for clustering in method._clusterings():
        torch.testing.assert_close(
            clustering.centres.norm(dim=1), torch.ones(len(clustering.centres))
        )
        assert clustering.concentration.mean().item() == pytest.approx(0.1, rel=1e-5)


def with_two_clusters(encoder: SentenceEncoder, **options: Any) -> Any:
    method = build(encoder, "prototypical", **SMALL | {"clusters": [2], "dim": 4} | options)
    method.clusterings[0].centres.copy_(torch.eye(4)[:2])
    method.clustered.fill_(True)
    return method


def test_cluster_mates_are_no_negatives(encoder: SentenceEncoder) -> None:
    batch = loose(batch_of(encoder, sentences(6)))
    embeddings = normal(6, 2, 4)
    keys = embeddings[:, 1]
    nearest = keys[:, :2].argmax(dim=1)
    assert 1 < nearest.sum() < 5
    queue, queue_ids = normal(7, 4, seed=3), torch.arange(100, 107)
    found = {}
    for mates in ("masked", "negatives"):
        method = with_two_clusters(encoder, mates=mates)
        method.queue.push(queue, queue_ids)
        method.queue.advance()
        found[mates] = float(method.loss(embeddings, batch).logs["contrastive_loss"])
    plain = info_nce(ContrastiveBatch(embeddings[:, 0], keys, temperature=0.1, queue=queue))
    assert found["negatives"] == pytest.approx(plain.loss.item(), rel=1e-6)
    total = 0.0
    for i in range(6):
        rivals = [keys[j] for j in range(6) if j == i or nearest[j] != nearest[i]]
        rivals += [key for key in queue if int(key[:2].argmax()) != nearest[i]]
        scores = torch.cosine_similarity(embeddings[i, :1], torch.stack(rivals)) / 0.1
        own = torch.cosine_similarity(embeddings[i, 0], keys[i], dim=0) / 0.1
        total += float(scores.logsumexp(0) - own)
    assert found["masked"] == pytest.approx(total / 6, rel=1e-5)
    assert found["masked"] < found["negatives"]


def test_copies_of_a_text_are_mates_wherever_they_lie() -> None:
    texts, nearest = torch.tensor([7, 8, 7, 9, 8]), torch.tensor([3, 1, 0, 2, 1])
    assert one_cluster_a_text(texts, nearest).tolist() == [0, 1, 0, 2, 1]


def test_same_state_gives_the_same_clusters(encoder: SentenceEncoder) -> None:
    first: PrototypicalContrast = build(encoder, "prototypical", **SMALL)
    texts = sentences(72)
    for number in range(5):
        step(first, batch_of(encoder, texts[12 * number : 12 * number + 12]))
    second: PrototypicalContrast = build(encoder, "prototypical", **SMALL)
    second.load_state_dict(first.state_dict(), strict=True)
    batch = batch_of(encoder, texts[60:])
    for seed, method in enumerate((first, second)):
        method(**{k: v for k, v in vars(batch).items() if v is not None})
        # k-means asks the count of steps for its random numbers, not torch
        torch.manual_seed(seed)
        method.after_step(0.5)
    for name, value in first.state_dict().items():
        assert value.equal(second.state_dict()[name]), name


def test_held_out_rows_leave_the_queue_alone(encoder: SentenceEncoder) -> None:
    method: PrototypicalContrast = build(encoder, "prototypical", **SMALL)
    with torch.no_grad():
        step(method, batch_of(encoder, sentences(8)))
    assert len(method.queue) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"queue_size": 100},
            r"1280 clusters need a queue of 12800 keys or more and method.queue_size is 100",
        ),
        ({"clusters": [1]}, "every clustering needs 2 clusters or more"),
        ({"clusters": []}, r"method.clusters is \[\]: list should have"),
        ({"mates": "kept"}, "method.mates is 'kept': input should be"),
    ],
)
def test_clusters_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_config("prototypical", options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["swav", "prototypical"])
def test_losses_are_in_full_precision_under_autocast(encoder: SentenceEncoder, name: str) -> None:
    options = {
        "swav": {"prototypes": 6, "hidden": 16, "queue_size": 12, "queue_start": 0.0},
        "prototypical": SMALL | {"queue_size": 50},
    }
    method = build(encoder, name, **options[name])
    texts = sentences(72)
    for number in range(5):
        step(method, batch_of(encoder, texts[12 * number : 12 * number + 12]))
    batch = batch_of(encoder, texts[60:])
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = method(**{k: v for k, v in vars(batch).items() if v is not None})
        assert output.loss.dtype == torch.float32
        output.loss.backward()
        losses.append(output.loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
