"""SimCSE: its two settings, its head, its MLM loss, and what it refuses."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import MULTIPLE, pack
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.methods import build_config
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.common.masking import mask_tokens, masked_lm_loss
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig

ANCHORS = ["the cat sat on the mat .", "a man is playing guitar", "dog ran", "old red house"]
POSITIVES = ["a cat sat", "the man is playing music", "the dog ran under a tree", "a house"]
NEGATIVES = ["the dog sat", "a woman eats", "the car", "new blue car ?"]
Batch = dict[str, Tensor]


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def build(encoder: SentenceEncoder, seed: int = 0, **options: Any) -> SimCSE:
    torch.manual_seed(seed)
    method = SimCSE(encoder, SimCSEConfig(**options))
    return method.train()


def batch_of(encoder: SentenceEncoder, *columns: list[str]) -> Batch:
    shape = (len(columns[0]), len(columns))
    texts = [text for row in zip(*columns, strict=True) for text in row]
    encoded = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return {
        "input_ids": encoded["input_ids"].unflatten(0, shape),
        "attention_mask": encoded["attention_mask"].unflatten(0, shape),
        "text_ids": torch.tensor([known[text] for text in texts]).view(shape),
        "view_mask": torch.ones(shape, dtype=torch.bool),
    }


def vectors(encoder: SentenceEncoder, texts: list[str]) -> Tensor:
    return encoder.encode(texts, to="torch", normalize=False)


# ------------------------------------------------------------------ the contrastive loss


def test_loss_of_texts_uses_each_sentence_as_its_own_positive(encoder: SentenceEncoder) -> None:
    method = build(encoder, head="none", temperature=0.2).eval()
    output = method(**batch_of(encoder, ANCHORS))
    expected = info_nce(vectors(encoder, ANCHORS), vectors(encoder, ANCHORS), temperature=0.2)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-4)
    assert float(output.logs["positive_cosine"]) == pytest.approx(1, abs=1e-5)
    assert float(output.logs["accuracy"]) == 1.0


def test_loss_of_pairs(encoder: SentenceEncoder) -> None:
    method = build(encoder, head="none").eval()
    output = method(**batch_of(encoder, ANCHORS, POSITIVES))
    left, right = vectors(encoder, ANCHORS), vectors(encoder, POSITIVES)
    torch.testing.assert_close(output.loss, info_nce(left, right), rtol=1e-4, atol=1e-3)
    cosines = nn.functional.cosine_similarity(left, right)
    assert float(output.logs["positive_cosine"]) == pytest.approx(cosines.mean().item(), abs=1e-5)
    table = nn.functional.normalize(left) @ nn.functional.normalize(right).T
    ranked_first = (table.argmax(dim=1) == torch.arange(4)).float().mean().item()
    assert float(output.logs["accuracy"]) == pytest.approx(ranked_first)


def test_loss_of_triplets_with_alpha_and_ragged_rows(encoder: SentenceEncoder) -> None:
    method = build(encoder, head="none", hard_negative_alpha=0.5).eval()
    batch = batch_of(encoder, ANCHORS, POSITIVES, NEGATIVES, POSITIVES[::-1])
    batch["view_mask"][1:3, 3] = False
    batch["text_ids"] += 100 * torch.arange(4)  # no two columns share a text
    hard = torch.stack([vectors(encoder, NEGATIVES), vectors(encoder, POSITIVES[::-1])], dim=1)
    expected = info_nce(
        vectors(encoder, ANCHORS),
        vectors(encoder, POSITIVES),
        hard,
        hard_negative_alpha=0.5,
        negative_mask=batch["view_mask"][:, 2:],
    )
    torch.testing.assert_close(method(**batch).loss, expected, rtol=1e-4, atol=1e-3)


def test_twins_of_one_sentence_differ_in_training(encoder: SentenceEncoder) -> None:
    output = build(encoder)(**batch_of(encoder, ANCHORS))
    assert float(output.logs["positive_cosine"]) < 0.999


def test_a_repeated_sentence_is_not_its_own_negative(encoder: SentenceEncoder) -> None:
    method = build(encoder).eval()
    assert method(**batch_of(encoder, [ANCHORS[0]] * 3)).loss.item() == 0.0
    # Row 3 repeats row 0: each of the two meets the two others only.
    once = method(**batch_of(encoder, ANCHORS[:3])).loss
    rows = vectors(encoder, ANCHORS[:3] + ANCHORS[:1])
    assert method.head is not None
    with torch.no_grad():
        rows = method.head(rows)
    repeated = method(**batch_of(encoder, ANCHORS[:3] + ANCHORS[:1])).loss
    assert repeated.item() < info_nce(rows, rows).item()
    assert repeated.item() > once.item()


def test_accuracy_of_a_collapsed_batch_is_zero(encoder: SentenceEncoder) -> None:
    batch = batch_of(encoder, [ANCHORS[0]] * 3)
    batch["text_ids"] = torch.arange(3).unsqueeze(1)
    method = build(encoder, head="none").eval()
    method.encoder.register_forward_hook(lambda _m, _a, result: torch.ones_like(result))
    assert float(method(**batch).logs["accuracy"]) == 0.0


def test_one_row_is_refused(encoder: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="a batch of one sentence has no negatives"):
        build(encoder)(**batch_of(encoder, ANCHORS[:1]))
    assert build(encoder)(**batch_of(encoder, *([text] for text in ANCHORS[:3]))).loss > 0


def test_layout_and_negatives() -> None:
    assert SimCSE.views(DataSpec("texts")) == (0,)
    assert SimCSE.views(DataSpec("pairs")) == (0, 1)
    assert SimCSE.views(DataSpec("triplets", 2)) == (0, 1, 2, 3)
    options = SimCSEConfig()
    assert options.contrast(DataSpec("texts"), 64) == Contrast(63)
    assert options.contrast(DataSpec("pairs"), 64) == Contrast(63)
    assert options.contrast(DataSpec("triplets", 1), 64) == Contrast(127)
    assert Contrast(63).reference_loss == pytest.approx(4.1589, abs=1e-4)


# ------------------------------------------------------------------ the head


def test_head_is_fresh_and_initialised_like_bert() -> None:
    torch.manual_seed(0)
    head = mlp_head(200)
    assert head.linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(head.linear.weight.mean().item()) < 1e-3
    assert not head.linear.bias.any()
    inputs = torch.randn(3, 200)
    expected = torch.tanh(inputs @ head.linear.weight.T + head.linear.bias)
    torch.testing.assert_close(head(inputs), expected)


def test_head_for_training_only_is_not_saved(encoder: SentenceEncoder, tmp_path: Path) -> None:
    before = vectors(encoder, ANCHORS)
    method = build(encoder, mlp_only_train=True)
    assert method.head is not None
    assert encoder.head is None
    encoder.eval().save(tmp_path / "out")
    again = SentenceEncoder.load(tmp_path / "out")
    assert again.head is None
    assert again.pooling == encoder.pooling
    torch.testing.assert_close(vectors(again, ANCHORS), before)


def test_kept_head_is_saved_and_trained_on(encoder: SentenceEncoder, tmp_path: Path) -> None:
    method = build(encoder, mlp_only_train=False)
    assert method.head is None
    assert encoder.head is not None
    encoder.eval().save(tmp_path / "out")
    again = SentenceEncoder.load(tmp_path / "out")
    assert again.head is not None
    torch.testing.assert_close(vectors(again, ANCHORS), vectors(encoder, ANCHORS))
    weights = [weight.clone() for weight in again.head.parameters()]
    continued = build(again, seed=1, mlp_only_train=False)
    assert continued.head is None
    assert again.head is not None
    for weight, kept in zip(again.head.parameters(), weights, strict=True):
        assert torch.equal(weight, kept)


def test_no_head(encoder: SentenceEncoder) -> None:
    method = build(encoder, head="none", mlp_only_train=False)
    assert method.head is None
    assert encoder.head is None


# ------------------------------------------------------------------ dropout


def test_dropout_is_set_when_given(encoder: SentenceEncoder) -> None:
    own = encoder.dropouts()
    build(encoder)
    assert encoder.dropouts() == own
    build(encoder, dropout=0.25)
    assert set(encoder.dropouts().values()) == {0.25}


def test_warns_once_that_texts_without_dropout_teach_nothing(
    encoder: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    method = build(encoder, dropout=0.0)
    with caplog.at_level(logging.WARNING):
        method(**batch_of(encoder, ANCHORS, POSITIVES))
        method.eval()(**batch_of(encoder, ANCHORS))
        assert caplog.records == []
        for _ in range(2):
            method.train()(**batch_of(encoder, ANCHORS))
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "--set method.dropout=0.1" in message
    assert "\n" not in message


def test_does_not_warn_with_dropout(
    encoder: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    build(encoder)(**batch_of(encoder, ANCHORS))
    assert caplog.records == []


# ------------------------------------------------------------------ masked language modelling


def test_masking_follows_the_80_10_10_rule() -> None:
    torch.manual_seed(0)
    ids = torch.randint(5, 1000, (400, 100))
    ids[:, 0] = 2
    attention = torch.ones_like(ids)
    attention[:, 90:] = 0
    original = ids.clone()
    masked, chosen = mask_tokens(
        ids, attention, mask_id=4, special_ids=[0, 1, 2, 3, 4], vocabulary=1000, probability=0.3
    )
    assert torch.equal(ids, original)
    assert not chosen[:, 0].any()
    assert not chosen[:, 90:].any()
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert chosen[:, 1:90].float().mean().item() == pytest.approx(0.3, abs=0.01)
    became_mask = (masked[chosen] == 4).float().mean().item()
    stayed = (masked[chosen] == ids[chosen]).float().mean().item()
    assert became_mask == pytest.approx(0.8, abs=0.015)
    assert stayed == pytest.approx(0.1, abs=0.015)
    swapped = masked[chosen & (masked != 4) & (masked != ids)]
    assert swapped.float().mean().item() == pytest.approx(500, abs=25)
    assert swapped.max() < 1000


def test_masked_lm_loss_is_the_mean_over_chosen_tokens() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 7), torch.randint(7, (2, 3))
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    picks = [(0, 0), (0, 2), (1, 1)]
    expected = -sum(logits[r, c].log_softmax(0)[ids[r, c]] for r, c in picks) / 3
    torch.testing.assert_close(masked_lm_loss(logits, ids, chosen), expected)
    assert masked_lm_loss(logits.bfloat16(), ids, chosen).dtype == torch.float32


def test_nothing_chosen_gives_zero_without_nan() -> None:
    logits = torch.randn(2, 3, 7, requires_grad=True)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    loss = masked_lm_loss(logits, ids, torch.zeros(2, 3, dtype=torch.bool))
    assert loss.item() == 0.0
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_mlm_leaves_the_contrastive_part_untouched(encoder: SentenceEncoder) -> None:
    batch = batch_of(encoder, ANCHORS, POSITIVES)
    copies = {key: value.clone() for key, value in batch.items()}
    plain, weighted = build(encoder), build(encoder, mlm_weight=0.1, mlm_probability=0.5)
    seen: list[Tensor] = []
    hook = encoder.backbone.get_input_embeddings().register_forward_pre_hook(
        lambda _module, arguments: seen.append(arguments[0].clone())
    )
    torch.manual_seed(3)
    output = weighted(**batch)
    hook.remove()
    torch.manual_seed(3)
    expected = plain(**batch)
    for key, value in batch.items():
        assert torch.equal(value, copies[key]), key
    assert output.logs["contrastive_loss"] == expected.loss
    contrastive, masked = seen
    rows, attention = (batch[key].flatten(0, 1) for key in ("input_ids", "attention_mask"))
    assert torch.equal(contrastive[0], pack(rows, attention, multiple=MULTIPLE)[0])
    changed = masked != rows
    assert changed.any()
    assert not torch.isin(rows[changed], torch.tensor(encoder.tokenizer.all_special_ids)).any()
    total = output.logs["contrastive_loss"] + 0.1 * output.logs["mlm_loss"]
    torch.testing.assert_close(output.loss.detach(), total)
    assert output.logs["mlm_loss"] > 0


def test_mlm_masks_both_views_of_a_text_separately(encoder: SentenceEncoder) -> None:
    seen: list[Tensor] = []
    method = build(encoder, mlm_weight=0.1, mlm_probability=0.5)
    assert method.mlm is not None
    method.mlm.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(keywords["input_ids"]), with_kwargs=True
    )
    method(**batch_of(encoder, ANCHORS))
    assert seen[0].shape[0] == 2 * len(ANCHORS)
    assert not torch.equal(seen[0][::2], seen[0][1::2])


def test_mlm_does_not_ask_for_absent_negatives(encoder: SentenceEncoder) -> None:
    batch = batch_of(encoder, ANCHORS, POSITIVES, NEGATIVES)
    batch["view_mask"][:, 2] = False
    seen: list[Tensor] = []
    method = build(encoder, mlm_weight=0.1, mlm_probability=1.0)
    assert method.mlm is not None
    method.mlm.register_forward_pre_hook(
        lambda _module, _arguments, keywords: seen.append(keywords["input_ids"]), with_kwargs=True
    )
    method(**batch)
    original = batch["input_ids"]
    masked = seen[0].view_as(original)
    assert torch.equal(masked[:, 2], original[:, 2])
    assert not torch.equal(masked[:, 0], original[:, 0])


def test_mlm_trains_the_shared_weights_and_its_head(encoder: SentenceEncoder) -> None:
    method = build(encoder, mlm_weight=1.0, mlm_probability=0.5)
    assert method.mlm is not None
    own = {id(weight) for weight in encoder.parameters()}
    extra = [weight for weight in method.mlm.parameters() if id(weight) not in own]
    assert 0 < len(extra) < len(own)
    output = method(**batch_of(encoder, ANCHORS))
    output.loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in extra)
    # The contrastive loss alone gives a word that is absent from the batch no gradient; the
    # tied output layer of MLM does.
    words = encoder.backbone.get_input_embeddings().weight
    assert words.grad[encoder.tokenizer.convert_tokens_to_ids("river")].any()


def test_mlm_loss_falls_in_training(encoder: SentenceEncoder) -> None:
    method = build(encoder, mlm_weight=1.0, mlm_probability=0.3, dropout=0.0)
    batch = batch_of(encoder, ANCHORS, POSITIVES)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        output = method(**batch)
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.logs["mlm_loss"]))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_state_with_mlm_makes_the_round_trip(
    encoder: SentenceEncoder, tiny_encoder_dir: Path
) -> None:
    first = build(encoder, mlm_weight=0.1)
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    second = build(SentenceEncoder.load(tiny_encoder_dir), seed=1, mlm_weight=0.1)
    second.load_state_dict(first.state_dict(), strict=True)
    batch = batch_of(encoder, ANCHORS, POSITIVES)
    torch.manual_seed(5)
    expected = first.eval()(**batch).loss
    torch.manual_seed(5)
    assert second.eval()(**batch).loss.equal(expected)


def test_mlm_without_a_mask_token_is_refused(encoder: SentenceEncoder) -> None:
    encoder.tokenizer = SimpleNamespace(mask_token_id=None)
    with pytest.raises(ModelError, match="needs a mask token"):
        build(encoder, mlm_weight=0.1)


# ------------------------------------------------------------------ options


def test_defaults_are_those_of_the_paper() -> None:
    config = build_config("simcse", {})
    assert config.model_dump() == {
        "objective": "info_nce",
        "temperature": 0.05,
        "learn_temperature": False,
        "hard_negative_alpha": 1.0,
        "matryoshka": [],
        "matryoshka_weights": [],
        "guide": None,
        "guide_margin": 0.0,
        "head": "mlp",
        "mlp_only_train": True,
        "mlm_weight": 0.0,
        "mlm_probability": 0.15,
        "dropout": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 0.1}, "unknown key 'method.temprature' (did you mean 'temperature'?)"),
        ({"temperature": 0}, "method.temperature is 0: input should be greater than 0"),
        ({"temperature": float("nan")}, "method.temperature is nan: input should be"),
        ({"temperature": True}, "method.temperature is True: must not be true"),
        ({"temperature": "warm"}, "method.temperature is 'warm': input should be a valid n"),
        ({"head": "mpl"}, "method.head is 'mpl': input should be 'mlp' or 'none'"),
        ({"hard_negative_alpha": -1}, "input should be greater than or equal to 0 (default 1.0)"),
        ({"mlm_probability": 0}, "method.mlm_probability is 0"),
        ({"dropout": 1.0}, "method.dropout is 1.0: input should be less than 1"),
        ({"mlp_only_train": "perhaps"}, "method.mlp_only_train is 'perhaps'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config("simcse", options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config("simcse", {"temperature": -1, "haed": "mlp"})
    assert "method.temperature is -1" in str(caught.value)
    assert "method.haed" in str(caught.value)
