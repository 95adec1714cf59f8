"""Margin contrastive: which label means what, and which labels are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.losses.pair_margin import margin_contrastive, pair_distance
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.margin_contrastive import MarginContrastive

BINARY = torch.tensor([0.0, 1.0, 1.0, 0.0])
GRADES = torch.tensor([5.0, 0.5, 3.9, 4.0])


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def build(encoder: SentenceEncoder, **options: Any) -> MarginContrastive:
    return MarginContrastive(encoder, build_config("margin_contrastive", options))  # type: ignore[arg-type]


def batch_of(labels: Tensor | None) -> Batch:
    ids = torch.ones(4, 2, 3, dtype=torch.int64)
    return Batch(ids, ids, torch.arange(8).view(4, 2), torch.ones(4, 2, dtype=torch.bool), labels)


def vectors() -> Tensor:
    return torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["distance", "squared"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_loss_is_the_formula_with_one_for_dissimilar(
    encoder: SentenceEncoder, form: str, metric: Any
) -> None:
    method = build(encoder, form=form, metric=metric, margin=1.7)
    pairs = vectors()
    distances = pair_distance(pairs[:, 0], pairs[:, 1], metric)
    expected = margin_contrastive(distances, BINARY, margin=1.7, squared=form == "squared")
    output = method.loss(pairs, batch_of(BINARY))
    assert output.loss.equal(expected)
    assert float(output.logs["similar_distance"]) == pytest.approx(distances[[0, 3]].mean().item())
    assert float(output.logs["dissimilar_distance"]) == pytest.approx(
        distances[[1, 2]].mean().item()
    )


def test_label_one_may_mean_similar(encoder: SentenceEncoder) -> None:
    similar = build(encoder, one_means="similar").loss(vectors(), batch_of(1 - BINARY)).loss
    assert similar.equal(build(encoder).loss(vectors(), batch_of(BINARY)).loss)


def test_grades_are_cut_at_the_threshold(encoder: SentenceEncoder) -> None:
    cut = build(encoder, one_means="similar", threshold=4.0)
    expected = build(encoder).loss(vectors(), batch_of(BINARY)).loss
    assert cut.loss(vectors(), batch_of(GRADES)).loss.equal(expected)


@pytest.mark.parametrize("bad", [GRADES, torch.tensor([0.0, 1.0, -1.0, 1.0]), BINARY * torch.nan])
def test_other_labels_are_refused(encoder: SentenceEncoder, bad: Tensor) -> None:
    with pytest.raises(DataError, match="is not 0 or 1") as caught:
        build(encoder).loss(vectors(), batch_of(bad))
    assert "method.threshold=4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_number_is_no_grade() -> None:
    options = build_config("margin_contrastive", {"threshold": 4.0})
    options.check_labels(GRADES)
    with pytest.raises(DataError, match="label nan is not a number"):
        options.check_labels(GRADES * torch.nan)


def test_a_batch_without_labels_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="needs a label in every row"):
        build(encoder).loss(vectors(), batch_of(None))


def test_one_sort_of_pairs_is_enough(encoder: SentenceEncoder) -> None:
    output = build(encoder).loss(vectors(), batch_of(torch.ones(4)))
    assert output.loss.isfinite()
    assert "similar_distance" not in output.logs


def test_prefixes_are_summed(encoder: SentenceEncoder) -> None:
    pairs, batch = vectors(), batch_of(BINARY)
    parts = [build(encoder).loss(pairs[..., :dim], batch).loss.item() for dim in (3, 8)]
    loss = build(encoder, matryoshka=[3, 8]).loss(pairs, batch).loss
    assert loss.item() == pytest.approx(sum(parts))
    width = encoder.embedding_dim
    with pytest.raises(ConfigError, match=f"the embeddings have {width} dimensions"):
        build(encoder, matryoshka=[width + 1])


def test_a_batch_of_one_pair_will_do() -> None:
    check_batch(MarginContrastive, build_config("margin_contrastive", {}), DataSpec("labelled"), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "method.margin is 0: input should be greater than 0 (default 1.0)"),
        (
            {"form": "cubed"},
            "method.form is 'cubed': input should be 'distance' or 'squared'",
        ),
        ({"one_means": "same"}, "input should be 'dissimilar' or 'similar' (default 'dissimilar')"),
        ({"matryoshka": [0]}, "matryoshka is [0]; give different numbers"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config("margin_contrastive", options)
    assert message in str(caught.value)


@pytest.mark.parametrize("form", ["distance", "squared"])
@pytest.mark.parametrize(("one_means", "labels"), [("dissimilar", BINARY), ("similar", 1 - BINARY)])
def test_equal_texts_labelled_dissimilar_are_left_out_and_said_once(
    encoder: SentenceEncoder,
    caplog: pytest.LogCaptureFixture,
    form: str,
    one_means: str,
    labels: Tensor,
) -> None:
    method = build(encoder, form=form, one_means=one_means)
    batch = batch_of(labels)
    batch.text_ids[1, 1] = batch.text_ids[1, 0]
    pairs = vectors()
    rows = [0, 2, 3]
    others = Batch(**{key: part[rows] for key, part in vars(batch).items() if part is not None})
    expected = method.loss(pairs[rows], others).loss * 3 / 4
    torch.testing.assert_close(method.loss(pairs, batch).loss, expected)
    method.loss(pairs, batch)
    (message,) = caplog.messages
    assert "equal texts is labelled dissimilar" in message
    other = "similar" if one_means == "dissimilar" else "dissimilar"
    assert f"--set method.one_means={other}" in message
