"""DiffCSE: the generator's edits, the conditional discriminator, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.replaced_token import replaced_token_loss
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.diffcse import DiffCSE, DiffCSEConfig, _Discriminator
from tests.encoder.conftest import family  # noqa: F401 - a fixture
from tests.methods.test_simcse import ANCHORS, POSITIVES, batch_of


def build(folder: Path, seed: int = 0, **options: Any) -> DiffCSE:
    torch.manual_seed(seed)
    method = DiffCSE(SentenceEncoder.load(folder), DiffCSEConfig(**options))
    return method.train()


def rows_of(method: DiffCSE, texts: list[str] = ANCHORS) -> tuple[Tensor, Tensor]:
    return Batch(**batch_of(method.encoder, texts)).rows()


# ------------------------------------------------------------------ the loss


def test_loss_is_the_contrastive_one_and_the_weighted_detection(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, rtd_weight=0.5, temperature=0.2, dropout=0.0)
    batch = method.layout(Batch(**batch_of(method.encoder, ANCHORS)))
    vectors = method.embed(*batch.rows(), batch.view_numbers())
    assert method.head is not None
    assert method.discriminator is not None
    torch.manual_seed(5)
    output = method.loss(vectors.view(4, 2, -1), batch)

    # one BatchNorm pass over both views
    linear, norm, _, second, last = copy.deepcopy(method.head).train()  # type: ignore[misc]
    hidden = linear(vectors)
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    hidden = second((hidden * norm.weight + norm.bias).relu())
    h = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + last.eps).sqrt()
    pairs = h.view(4, 2, -1)
    contrastive = info_nce(pairs[:, 0], pairs[:, 1], temperature=0.2)
    torch.manual_seed(5)
    ids, mask = batch.rows()
    edited = method._edit(ids, mask)
    detection = replaced_token_loss(method.discriminator(edited, mask, h), edited != ids, mask)
    torch.testing.assert_close(output.loss, contrastive + 0.5 * detection)
    assert float(output.logs["rtd_loss"]) == pytest.approx(detection.item(), rel=1e-5)
    assert float(output.logs["contrastive_loss"]) == pytest.approx(contrastive.item(), rel=1e-4)


def test_weight_zero_builds_no_second_model(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, rtd_weight=0.0)
    assert method.generator is None
    assert method.discriminator is None
    assert "rtd_loss" not in method(**batch_of(method.encoder, ANCHORS)).logs
    assert DiffCSEConfig(rtd_weight=0.0).chunking_obstacle() is None
    assert "rtd_weight = 0.005" in str(DiffCSEConfig().chunking_obstacle())


# ------------------------------------------------------------------ generator


@pytest.mark.parametrize("fill", ["argmax", "sample"])
def test_only_chosen_ordinary_tokens_are_edited(tiny_encoder_dir: Path, fill: Any) -> None:
    method = build(tiny_encoder_dir, fill=fill, masking_ratio=0.5)
    ids, mask = rows_of(method)
    before = ids.clone()
    torch.manual_seed(1)
    edited = method._edit(ids, mask)
    assert torch.equal(ids, before)
    changed = edited != ids
    special = torch.isin(ids, torch.tensor(method.encoder.tokenizer.all_special_ids))
    assert not (changed & (special | (mask == 0))).any()
    share = changed.sum() / ((mask == 1) & ~special).sum()
    assert 0.2 < share < 0.8
    torch.manual_seed(1)
    assert torch.equal(method._edit(ids, mask), edited)


def test_the_generator_fills_in_what_the_masked_lm_finds_likeliest(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir, masking_ratio=1.0)
    ids, mask = rows_of(method)
    lm = SentenceEncoder.load(tiny_encoder_dir).masked_lm().eval()
    from simcse_kit.methods.common.masking import mask_tokens

    tokenizer = method.encoder.tokenizer
    torch.manual_seed(2)
    masked, chosen = mask_tokens(
        ids,
        mask,
        mask_id=tokenizer.mask_token_id,
        special_ids=tokenizer.all_special_ids,
        vocabulary=len(tokenizer),
        probability=1.0,
    )
    likeliest = lm(input_ids=masked, attention_mask=mask).logits.argmax(-1)
    torch.manual_seed(2)
    assert torch.equal(method._edit(ids, mask), torch.where(chosen, likeliest, ids))


def test_the_generator_stays_as_it_was(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir)
    assert method.generator is not None
    before = copy.deepcopy(method.generator.state_dict())
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    torch.autograd.backward(method(**batch_of(method.encoder, ANCHORS)).loss)
    optimizer.step()
    for name, value in method.generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    ours = method.encoder.backbone.state_dict()["embeddings.word_embeddings.weight"]
    assert not torch.equal(ours, before["bert.embeddings.word_embeddings.weight"])


def test_a_generator_by_name(tiny_encoder_dir: Path) -> None:
    own, named = build(tiny_encoder_dir), build(tiny_encoder_dir, generator=str(tiny_encoder_dir))
    assert own.generator is not None
    assert named.generator is not None
    theirs = named.generator.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in own.generator.state_dict().items())
    with pytest.raises(ModelError, match=r"generator = 'mini' has another vocabulary"):
        build(tiny_encoder_dir, generator="mini")


# ------------------------------------------------------------------ discriminator


def test_the_vector_stands_behind_the_embeddings_of_the_first_token(
    tiny_encoder_dir: Path,
) -> None:
    method = build(tiny_encoder_dir).eval()
    assert method.discriminator is not None
    ids, mask = rows_of(method)
    # Large, and off zero: a LayerNorm in front would show.
    discriminator, vectors = method.discriminator, 30 * torch.randn(4, 32) + 10
    backbone = discriminator.backbone
    states = backbone.embeddings(input_ids=ids).clone()
    states[:, 0] = vectors
    away = torch.zeros(4, 1, 1, ids.shape[1]).masked_fill(mask[:, None, None] == 0, -1e9)
    for layer in backbone.encoder.layer:
        states = layer(states, away)
        states = states[0] if isinstance(states, tuple) else states
    expected = discriminator.classifier(states)
    seen = mask.bool()
    got = discriminator(ids, mask, vectors)
    torch.testing.assert_close(got[seen], expected[seen], rtol=1e-4, atol=1e-5)
    # the first token itself is not seen, and nothing is left behind
    ids[:, 0] = 7
    torch.testing.assert_close(discriminator(ids, mask, vectors)[seen], got[seen])
    assert not backbone.embeddings._forward_hooks


@pytest.mark.parametrize("name", ["roberta", "distilbert", "mpnet", "modernbert"])
def test_families_look_at_the_vector(
    family: Callable[[str], Path],  # noqa: F811
    name: str,
) -> None:
    encoder = SentenceEncoder.load(family(name))
    discriminator = _Discriminator(encoder).eval()
    batch = batch_of(encoder, ANCHORS)
    ids, mask = Batch(**batch).rows()
    one, other = (discriminator(ids, mask, v) for v in (torch.zeros(4, 32), torch.randn(4, 32)))
    assert one.shape == (4, ids.shape[1], 2)
    assert (one - other)[:, 1:][mask[:, 1:].bool()].abs().min() > 0


@pytest.mark.parametrize("name", ["electra", "albert"])
def test_families_without_room_for_the_vector_are_refused(
    family: Callable[[str], Path],  # noqa: F811
    name: str,
) -> None:
    with pytest.raises(ModelError, match=f"model type '{name}' does not allow"):
        DiffCSE(SentenceEncoder.load(family(name)), DiffCSEConfig())


def test_detection_trains_the_encoder_through_the_vector(tiny_encoder_dir: Path) -> None:
    method = build(tiny_encoder_dir)
    batch = method.layout(Batch(**batch_of(method.encoder, ANCHORS)))
    embeddings = torch.randn(4, 2, 32, requires_grad=True)
    torch.manual_seed(0)
    weighted = method.loss(embeddings, batch)
    (with_rtd,) = torch.autograd.grad(weighted.loss, embeddings)
    method.discriminator = None
    (without,) = torch.autograd.grad(method.loss(embeddings, batch).loss, embeddings)
    assert 0 < (with_rtd - without).abs().max() < without.abs().max()


# ------------------------------------------------------------------ state and refusals


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(tiny_encoder_dir: Path) -> None:
    def step(method: DiffCSE, seed: int) -> float:
        torch.manual_seed(seed)
        loss = method(**batch_of(method.encoder, [ANCHORS, POSITIVES][seed % 2])).loss
        torch.autograd.backward(loss)
        with torch.no_grad():
            for weight in method.parameters():
                if weight.grad is not None:
                    weight -= 0.05 * weight.grad
        method.zero_grad()
        return float(loss.detach())

    whole, first = build(tiny_encoder_dir), build(tiny_encoder_dir)
    losses = [step(whole, seed) for seed in range(4)]
    assert losses[:2] == [step(first, seed) for seed in range(2)]
    second = build(tiny_encoder_dir, seed=99)
    second.load_state_dict(copy.deepcopy(first.state_dict()), strict=True)
    assert losses[2:] == [step(second, seed) for seed in range(2, 4)]


def test_models_that_cannot_serve(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    saved = tmp_path / "no-mlm"
    SentenceEncoder.load(tiny_encoder_dir).save(saved)
    with pytest.raises(ModelError, match="no masked-LM head"):
        build(saved)
    build(saved, rtd_weight=0.0)

    encoder = SentenceEncoder.load(tiny_encoder_dir)
    encoder.backbone.embeddings = None
    with pytest.raises(ModelError, match=r"built like BERT or set method.rtd_weight"):
        DiffCSE(encoder, DiffCSEConfig())
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    encoder.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="needs a mask token"):
        DiffCSE(encoder, DiffCSEConfig())


def test_heads(tiny_encoder_dir: Path) -> None:
    kinds = [type(build(tiny_encoder_dir, head=head).head) for head in ("batchnorm", "mlp", "none")]
    assert issubclass(kinds[0], nn.Sequential)
    assert kinds[1].__name__ == "Dense"
    assert kinds[2] is type(None)
