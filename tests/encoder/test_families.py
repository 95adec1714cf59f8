"""Every family of the installed transformers: our vectors against the model's own.

The reference is the model with its eager attention, one text at a time, without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import Batching, Unpacked
from simcse_kit.errors import ModelError
from tests.encoder.conftest import SENTENCES
from tests.encoder.family_models import auto_class, build, why_no_text_encoder

PACKED = "packed"
PADDED = Unpacked.PADDED
EQUAL = Unpacked.EQUAL_LENGTHS

# Families that are refused, and a part of the message.
REFUSED = {
    "bros": "You have to specify bbox",
    "canine": "is a CanineModel",
    "dpr": "no attribute 'last_hidden_state'",
    "funnel": "gives no token states",
    "ibert": "is a IBertModel",
    "lxmert": "`visual_feats` cannot be `None`",
    "reformer": r"gives states of shape \(24, 64\)",
    "sam3_lite_text_text_model": "is a Sam3LiteTextTextModel",
}
# Families that take token ids but cannot be built small and at random, and why.
NOT_BUILT = {
    "blt": "works on patches of bytes, with hash tables of half a million rows",
    "dots3_note_text": "its configuration differs by layer",
    "evolla": "reads proteins; AutoModel does not know its configuration",
    "fastspeech2_conformer": "makes speech",
    "fastspeech2_conformer_with_hifigan": "makes speech",
    "kyutai_speech_to_text": "reads codes of speech",
    "musicgen": "makes music",
    "musicgen_melody": "makes music",
    "vits": "makes speech",
    "xlstm": "its kernel expects a state of another shape than the tiny model has",
}
# Families whose router draws random numbers in training.
RANDOM_IN_TRAINING = {"phimoe"}
# Why a model type is not a text encoder.
OTHER_KINDS = {
    "takes no input_ids",
    "encoder and decoder",
    "not of text alone",
    "cannot be imported",
}

# One for each mechanism: what is built, and how its batches have to run.
WINDOWED = {"sliding_window": 5, "is_causal": False}
SAMPLE: dict[str, tuple[str, dict[str, Any], object]] = {
    "own blocks": ("bert", {}, PACKED),
    "positions from the padding id": ("xlm-roberta", {}, PACKED),
    "causal BERT": ("bert", {"is_decoder": True}, PACKED),
    "attention sinks": ("gpt_oss", {}, PADDED),
    "capped scores": ("gemma2", {}, PADDED),
    "bidirectional window": ("mistral", WINDOWED, PACKED),
    "windows in some layers": (
        "qwen3",
        WINDOWED | {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None},
        PACKED,
    ),
    "window of an encoder": ("modernbert", {}, PACKED),
    "Gemma made bidirectional": ("gemma3_text", {"use_bidirectional_attention": True}, PACKED),
    "values of another width": ("deepseek_v3", {}, PACKED),
    "position bias": ("t5", {}, PADDED),
    "ALiBi": ("bloom", {}, PADDED),
    "chunks": ("llama4_text", {"attention_chunk_size": 4}, PADDED),
    "recurrent": ("mamba", {}, PADDED),
    "no attention mask": ("fnet", {}, EQUAL),
    "convolution": ("convbert", {}, EQUAL),
    "pooler always called": ("squeezebert", {}, PADDED),
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, bidirectional window": (
        "qwen2",
        WINDOWED | {"use_sliding_window": True, "max_window_layers": 1, "layer_types": None},
    ),
    "starcoder2, bidirectional window": ("starcoder2", WINDOWED),
    "phi3, bidirectional window": ("phi3", WINDOWED),
    "ministral, bidirectional window": ("ministral", WINDOWED),
    "llama, bidirectional": ("llama", {"is_causal": False}),
    "gemma2, bidirectional": ("gemma2", {"is_causal": False}),
    "gemma2 without caps": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gpt_oss, bidirectional": ("gpt_oss", {"is_causal": False}),
    "llama, one key head": ("llama", {"num_key_value_heads": 1}),
    "llama, wide heads": ("llama", {"head_dim": 24}),
    "llama, yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama, dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "phi3, longrope": (
        "phi3",
        {
            "original_max_position_embeddings": 8,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 4,
                "long_factor": [3.0] * 4,
                "original_max_position_embeddings": 8,
            },
        },
    ),
    "distilbert, sinusoidal": ("distilbert", {"sinusoidal_pos_embds": True}),
    "albert, groups": ("albert", {"num_hidden_groups": 3, "inner_group_num": 2}),
    "esm, rotary": ("esm", {"position_embedding_type": "rotary"}),
    "gpt2, scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2, unscaled": ("gpt2", {"scale_attn_weights": False}),
    "modernbert, global": ("modernbert", {"global_attn_every_n_layers": 1}),
    "opt": ("opt", {}),
}

Made = Callable[..., Path]


@torch.no_grad()
def runs(kind: str) -> bool:
    """Whether a family can be built and takes token ids alone."""
    try:
        build(kind)(input_ids=torch.arange(4, 16)[None])
    # A family that cannot be built fails in its own way.
    except Exception:
        return False
    return True


def own_model(folder: Path, kind: str, attention: str = "eager") -> Any:
    return auto_class(kind).from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    )


def pooled(states: torch.Tensor, pooling: str) -> torch.Tensor:
    """``(L, d)`` of a text alone to its vector."""
    if pooling == "mean":
        return states.mean(0)
    return states[0] if pooling == "cls_before_pooler" else states[-1]


@torch.no_grad()
def own_vectors(model: Any, rows: list[list[int]], pooling: str) -> NDArray[np.float32]:
    """One text at a time."""
    vectors = []
    for row in rows:
        ids = torch.tensor([row])
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        vectors.append(pooled(states[0], pooling))
    return torch.stack(vectors).numpy()


def check_vectors(folder: Path, kind: str, attention: str = "eager") -> SentenceEncoder:
    """All poolings of a model, in one batch of texts of many lengths."""
    model = own_model(folder, kind, attention).eval()
    encoder = SentenceEncoder.load(folder, pooling="mean")
    rows, _ = encoder.tokenize(SENTENCES)
    for pooling in ("mean", "cls_before_pooler", "last_token"):
        encoder.pooling = pooling
        expected = own_vectors(model, rows, pooling)
        found = encoder.encode(SENTENCES, normalize=False)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), pooling
        # In a causal model all first tokens are alike.
        differ = np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()
        assert differ or pooling == "cls_before_pooler"
    encoder.pooling = "mean"
    return encoder


def check_training(encoder: SentenceEncoder, folder: Path, kind: str) -> None:
    """Vectors and gradients of a batch in training, without dropout, after encoding."""
    model = own_model(folder, kind)
    encoder.set_dropout(0.0)
    encoder.train()
    ids, mask = pad_batch(encoder.tokenize(SENTENCES)[0], encoder.tokenizer.pad_token_id)
    vectors = encoder(ids, mask)
    weight = torch.randn(vectors.shape)
    (vectors * weight).sum().backward()
    # The model itself, one text at a time.
    model.train()
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for row, present, of_row in zip(ids, mask.bool(), weight, strict=True):
        states = model(
            input_ids=row[present][None], attention_mask=torch.ones(1, int(present.sum()))
        ).last_hidden_state
        (states[0].mean(0) * of_row).sum().backward()
    expected = {name: part.grad for name, part in model.named_parameters()}
    for name, parameter in encoder.backbone.named_parameters():
        if parameter.grad is None:
            continue
        other = expected[name]
        assert other is not None, name
        scale = max(1e-3, float(other.abs().max()))
        assert float((parameter.grad - other).abs().max()) <= 1e-3 * scale, name


def how(batching: Batching) -> object:
    return PACKED if batching.packed else batching.unpacked


@pytest.mark.long
@pytest.mark.parametrize("mechanism", SAMPLE)
def test_mechanisms(made: Made, mechanism: str) -> None:
    kind, changes, expected = SAMPLE[mechanism]
    encoder = check_vectors(made(kind, **changes), kind)
    assert how(encoder.batching) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(MODEL_MAPPING_NAMES))
def test_every_family(made: Made, kind: str) -> None:
    reason = why_no_text_encoder(kind)
    if reason and kind not in ("t5", "mt5", "umt5"):
        assert reason in OTHER_KINDS
        return
    if kind in NOT_BUILT:
        assert not runs(kind), "it can be built now"
        return
    folder = made(kind)
    if kind in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[kind]):
            SentenceEncoder.load(folder, pooling="mean").encode(SENTENCES)
        return
    encoder = check_vectors(folder, kind)
    if encoder.batching.packed and kind not in RANDOM_IN_TRAINING:
        check_training(encoder, folder, kind)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(made: Made, variant: str) -> None:
    kind, changes = VARIANTS[variant]
    folder = made(kind, **changes)
    encoder = check_vectors(folder, kind)
    if encoder.batching.packed:
        check_training(encoder, folder, kind)


@pytest.mark.slow
def test_falcon_with_alibi(made: Made) -> None:
    """Its eager attention counts ALiBi twice in transformers 5.24, so SDPA is the reference."""
    folder = made("falcon", alibi=True)
    check_vectors(folder, "falcon", attention="sdpa")
