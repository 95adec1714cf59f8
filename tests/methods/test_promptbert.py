"""PromptBERT: its two templates, the bias that is removed, and the encoder that is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.tokenization import Template
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.methods import build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.promptbert import PromptBERT, PromptBERTConfig, exchange
from tests.encoder.conftest import family  # noqa: F401 - a fixture
from tests.methods.test_simcse import ANCHORS, NEGATIVES, POSITIVES

FIRST, SECOND = 'the man reads "[X]" , a [MASK] .', "a big [X] is [MASK] ."
OPTIONS = {"template": FIRST, "second_template": SECOND}


def build(folder: Path, **options: Any) -> PromptBERT:
    torch.manual_seed(0)
    method = PromptBERT(SentenceEncoder.load(folder), PromptBERTConfig(**(OPTIONS | options)))
    return method.train()


def batch_of(method: PromptBERT, *columns: list[str]) -> Batch:
    texts = [text for row in zip(*columns, strict=True) for text in row]
    ids, mask = pad_batch(method.encoder.tokenize(texts)[0], method.encoder.tokenizer.pad_token_id)
    shape = (len(columns[0]), len(columns))
    number = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    return Batch(
        ids.unflatten(0, shape),
        mask.unflatten(0, shape),
        torch.tensor([number[text] for text in texts]).view(shape),
        torch.ones(shape, dtype=torch.bool),
    )


def rows_of(encoder: SentenceEncoder, template: str, texts: list[str]) -> list[list[int]]:
    return Template.of(template, encoder.tokenizer).rows(encoder.tokenizer, texts, 60)[0]


def debiased(method: PromptBERT, template: str, texts: list[str]) -> Tensor:
    """As the official code has it: the template alone, with the positions behind it moved on."""
    encoder, vectors = method.encoder.eval(), []
    form = Template.of(template, encoder.tokenizer)
    alone = torch.tensor([*form.head, *form.tail])
    for row in rows_of(encoder, template, texts):
        extra = len(row) - len(alone)
        positions = torch.arange(len(alone))
        positions[len(form.head) :] += extra
        place = form.place
        h = encoder.backbone(torch.tensor([row])).last_hidden_state[0, place]
        bias = encoder.backbone(alone[None], position_ids=positions[None]).last_hidden_state
        vectors.append(h - bias[0, place])
    return torch.stack(vectors)


@pytest.mark.parametrize("kind", ["texts", "pairs", "triplets"])
@pytest.mark.parametrize("head", ["mlp", "none"])
def test_loss_is_info_nce_of_vectors_without_their_bias(
    tiny_encoder_dir: Path, kind: str, head: Any
) -> None:
    method = build(tiny_encoder_dir, head=head, temperature=0.3).eval()
    columns = [ANCHORS, POSITIVES, NEGATIVES][: {"texts": 1, "pairs": 2, "triplets": 3}[kind]]
    others = columns[1:] or [ANCHORS]
    h = [debiased(method, FIRST, ANCHORS), *(debiased(method, SECOND, x) for x in others)]
    if method.head is not None:
        h = [method.head(x) for x in h]
    expected = info_nce(h[0], h[1], h[2][:, None] if len(h) == 3 else None, temperature=0.3)
    loss = method(**vars(batch_of(method, *columns))).loss
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.autograd.backward(loss)


# RoBERTa counts positions from behind its padding id, 0 here.
@pytest.mark.parametrize(("name", "first"), [("bert", 0), ("roberta", 1), ("distilbert", 0)])
def test_the_bias_has_the_positions_of_the_sentence_it_was_around(
    family: Callable[[str], Path],  # noqa: F811
    name: str,
    first: int,
) -> None:
    method = build(family(name), head="none").eval()
    texts = ["cat", "a very big red cat sat on the mat", "dog ran", "cat"]
    batch = method.layout(batch_of(method, texts))
    got = method._bias(*batch.rows(), batch.view_numbers() > 0).view(4, 2, -1)
    backbone, place = method.encoder.backbone, method._templates[0].place
    for view, template in enumerate((FIRST, SECOND)):
        form = Template.of(template, method.encoder.tokenizer)
        alone = torch.tensor([[*form.head, *form.tail]])
        for row, ids in enumerate(rows_of(method.encoder, template, texts)):
            positions = torch.arange(alone.shape[1]) + first
            positions[len(form.head) :] += len(ids) - alone.shape[1]
            # Put in where the model itself would look them up.
            hook = backbone.embeddings.position_embeddings.register_forward_hook(
                lambda module, _, found, at=positions: module.weight[at].expand_as(found)
            )
            try:
                states = backbone(alone).last_hidden_state
            finally:
                hook.remove()
            torch.testing.assert_close(got[row, view], states[0, place], rtol=1e-4, atol=1e-5)


def test_without_removal_the_vectors_are_those_of_the_encoder(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, head="none", remove_bias=False).eval()
    batch = batch_of(method, ANCHORS)
    got = method.embed(*batch.rows(), batch.view_numbers())
    np.testing.assert_allclose(got.detach().numpy(), method.encoder.encode(ANCHORS), atol=1e-6)


def test_gradient_goes_through_the_bias_too(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, head="none").eval()
    batch = method.layout(batch_of(method, ANCHORS))
    ids, mask = batch.rows()
    table = method.encoder.backbone.embeddings.word_embeddings.weight
    bias = method._bias(ids, mask, batch.view_numbers() > 0)
    (gradient,) = torch.autograd.grad(bias.square().sum(), table)
    # of the template's words, not of those of the sentences
    words = method.encoder.tokenizer.convert_tokens_to_ids(["man", "guitar", "[MASK]", "tree"])
    assert gradient[words].abs().sum(1).gt(0).tolist() == [True, False, True, False]


def test_views_are_put_into_their_templates(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir)
    laid = method.layout(batch_of(method, [*ANCHORS, ""], [*POSITIVES, "cat"], [*NEGATIVES, "a"]))
    columns = ([*ANCHORS, ""], [*POSITIVES, "cat"], [*NEGATIVES, "a"])
    for view, (texts, template) in enumerate(zip(columns, (FIRST, SECOND, SECOND), strict=True)):
        for row, text in enumerate(rows_of(method.encoder, template, texts)):
            there = laid.attention_mask[row, view].bool()
            assert laid.input_ids[row, view][there].tolist() == text
            assert not laid.input_ids[row, view][~there].any()
            assert there.sum() == len(text)


@pytest.mark.parametrize("most", [None, 12, 10])
def test_exchange_cuts_what_does_not_fit(tiny_encoder_dir: Path, most: int | None) -> None:
    tokenizer = SentenceEncoder.load(tiny_encoder_dir).tokenizer
    short, long = (Template.of(text, tokenizer) for text in ("[X] [MASK]", FIRST))
    rows = short.rows(tokenizer, ["cat", "a cat sat on a mat"], 30)[0]
    ids, mask = pad_batch(rows, 0)
    got, there = exchange(ids, mask, torch.tensor([False, True]), short, long, pad_id=0, most=most)
    assert got[0][there[0].bool()].tolist() == rows[0]
    expected = (
        long.rows(tokenizer, ["a cat sat on a mat"], most or 60)[0][0] if most != 10 else None
    )
    if expected is not None:
        assert got[1][there[1].bool()].tolist() == expected
    if most is not None:
        assert there.sum(1).max() <= max(most, len(long.head) + len(long.tail))


def test_refusals(tiny_encoder_dir: Path) -> None:
    for key in OPTIONS:
        with pytest.raises(ConfigError, match=f"method.{key} = 'x' is not allowed: template 'x'"):
            build_config("promptbert", {key: "x"})
    with pytest.raises(ConfigError, match=r"mask token 3 tokens from the end .* 2 tokens from the"):
        build(tiny_encoder_dir, second_template="[X] [MASK]")
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="cls_before_pooler")
    encoder.set_head(mlp_head(32))
    with pytest.raises(ModelError, match=r"keeps a head .* cannot take a template"):
        PromptBERT(encoder, PromptBERTConfig())
