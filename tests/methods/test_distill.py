"""Distillation: its options, and the loss of a batch with targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.losses.distillation import relational_kl, target_distance, target_mse
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.distill import Distill
from simcse_kit.methods.simcse import SimCSE

TEXTS = DataSpec("texts")
VECTORS = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def make(encoder: SentenceEncoder, **options: Any) -> Distill:
    return Distill(encoder, build_config("distill", options))


def batch(views: int = 1, targets: torch.Tensor | None = TARGETS) -> Batch:
    ids = torch.zeros(4, views, 3, dtype=torch.int64)
    present = torch.ones(4, views, dtype=torch.bool)
    texts = torch.arange(4).unsqueeze(1).expand(4, views)
    return Batch(ids, ids, texts, present, targets=targets)


def test_the_loss_is_the_weighted_sum_of_its_parts(encoder: SentenceEncoder) -> None:
    method = make(encoder, cosine_weight=2, kl_weight=3, mse_weight=0.5, temperature=0.1)
    output = method.loss(VECTORS[:, :1], batch())
    vectors = VECTORS[:, 0]
    parts = {
        "target_distance": target_distance(vectors, TARGETS),
        "relational_kl": relational_kl(vectors, TARGETS, temperature=0.1),
        "target_mse": target_mse(vectors, TARGETS),
    }
    expected = 2 * parts["target_distance"] + 3 * parts["relational_kl"] + parts["target_mse"] / 2
    torch.testing.assert_close(output.loss, expected)
    assert {name: float(value) for name, value in output.logs.items()} == {
        name: pytest.approx(float(value)) for name, value in parts.items()
    }


def test_every_view_has_the_target_of_its_row(encoder: SentenceEncoder) -> None:
    """Augmentation makes two views of a sentence."""
    method = make(encoder, kl_weight=0)
    output = method.loss(VECTORS, method.layout(batch(2)))
    expected = sum(target_distance(VECTORS[:, view], TARGETS) for view in range(2)) / 2
    torch.testing.assert_close(output.loss, expected)


def test_the_contrast_is_that_of_simcse_and_takes_every_sentence_twice(
    encoder: SentenceEncoder,
) -> None:
    method = make(encoder, contrast_weight=0.5, kl_weight=0, temperature=0.1)
    both = method.layout(batch(1))
    assert both.shape == (4, 2)
    output = method.loss(VECTORS, both)
    simcse = SimCSE(encoder, build_config("simcse", {"temperature": 0.1, "head": "none"}))
    contrast = simcse.loss(VECTORS, both).loss
    distance = sum(target_distance(VECTORS[:, view], TARGETS) for view in range(2)) / 2
    torch.testing.assert_close(output.loss, distance + contrast / 2)
    torch.testing.assert_close(output.logs["contrastive_loss"], contrast)


def test_without_contrast_a_sentence_is_taken_once(encoder: SentenceEncoder) -> None:
    assert make(encoder).layout(batch(1)).shape == (4, 1)


def test_targets_stay_when_views_are_taken() -> None:
    taken = batch(2).take_views([1, 0, 1])
    assert taken.shape == (4, 3)
    assert taken.targets is TARGETS
    assert batch().to(torch.device("cpu")).targets is TARGETS


def test_a_batch_without_targets_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="has none; name a teacher with --teacher MODEL"):
        make(encoder).loss(VECTORS[:, :1], batch(targets=None))


def test_training_without_a_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no teacher is given; .* with --teacher"):
        check_batch(Distill, build_config("distill", {}), TEXTS, 8)


def test_a_batch_of_one_row_has_nothing_to_compare() -> None:
    options = {"teachers": ["mini"]}
    with pytest.raises(ConfigError, match=r"compares the rows of a batch; use --batch-size 2"):
        check_batch(Distill, build_config("distill", options), TEXTS, 1)
    check_batch(Distill, build_config("distill", options | {"kl_weight": 0}), TEXTS, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teachers": ["a"], "teacher_weights": [1, 2]}, "has 2 numbers for 1 teachers"),
        ({"teachers": ["a"], "teacher_weights": [0]}, "every weight must be above 0"),
        ({"cosine_weight": 0, "kl_weight": 0}, "are all 0; set one of them above 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_config("distill", options)
    assert "\n" not in str(caught.value)


def test_a_temperature_without_use_is_reported() -> None:
    options = {"temperature": 0.1, "kl_weight": 0}
    (sentence,) = build_config("distill", options).unused(TEXTS)
    assert sentence == (
        "method.temperature = 0.1 has no effect, because kl_weight and contrast_weight are 0"
    )
    assert build_config("distill", {"temperature": 0.1}).unused(TEXTS) == []
    assert build_config("distill", options | {"contrast_weight": 1}).unused(TEXTS) == []
