"""Every family of transformers on the device: packed vectors, gradients and half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from tests.encoder.conftest import SENTENCES, _copy_tokenizer
from tests.encoder.family_models import auto_class, build, why_no_text_encoder
from tests.encoder.test_families import NOT_BUILT, REFUSED, SAMPLE, VARIANTS

pytestmark = pytest.mark.gpu

# A CPU tries one family for each mechanism.
CASES = {kind: (kind, {}) for kind in sorted(MODEL_MAPPING_NAMES)} | VARIANTS
ON_CPU = {kind for kind, changes, _ in SAMPLE.values() if not changes}
POOLINGS = ("mean", "cls_before_pooler", "last_token")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def write(folder: Path, tokenizer: Path, kind: str, **changes: Any) -> Path:
    """Save a tiny random model of a family with the tiny tokenizer."""
    build(kind, **changes).save_pretrained(folder)
    _copy_tokenizer(tokenizer, folder)
    return folder


@torch.no_grad()
def states_of(
    folder: Path, kind: str, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """The model's own eager states in float32 on the CPU, one text at a time."""
    options = {"dtype": dtype, "attn_implementation": "eager"}
    model = auto_class(kind).from_pretrained(folder, **options).eval().to(device)
    rows, _ = SentenceEncoder.load(folder, pooling="mean", device="cpu").tokenize(SENTENCES)
    found = []
    for row in rows:
        ids = torch.tensor([row], device=device)
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        found.append(states[0].float().cpu())
    return found


def pooled(states: list[Tensor], pooling: str) -> Any:
    ways = {"mean": lambda s: s.mean(0), "cls_before_pooler": lambda s: s[0]}
    return torch.stack([ways.get(pooling, lambda s: s[-1])(state) for state in states]).numpy()


def lowest_cosine(one: Any, other: Any) -> float:
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other))
    return float((one * other).sum(axis=1).min())


@pytest.mark.parametrize("case", CASES)
def test_vectors_equal_those_of_single_rows(
    device: torch.device, tiny_encoder_dir: Path, tmp_path: Path, case: str
) -> None:
    if device.type == "cpu" and case not in ON_CPU:
        pytest.skip("a CPU tries one family for each mechanism")
    kind, changes = CASES[case]
    reason = NOT_BUILT.get(kind) or REFUSED.get(kind) or why_no_text_encoder(kind)
    if reason and kind not in ("t5", "mt5", "umt5"):
        pytest.skip(f"no encoder that can be built: {reason}")
    folder = write(tmp_path, tiny_encoder_dir, kind, **changes)
    cpu = states_of(folder, kind, "cpu")
    single = cpu if device.type == "cpu" else states_of(folder, kind, device)
    encoder = SentenceEncoder.load(folder, pooling="mean", device=str(device))
    vectors = {}
    for pooling in POOLINGS:
        encoder.pooling = pooling
        vectors[pooling] = encoder.encode(SENTENCES, normalize=False)
        for states in (single, cpu):
            expected = pooled(states, pooling)
            difference = np.abs(vectors[pooling] - expected).max()
            assert difference <= 1e-5 * max(1.0, np.abs(expected).max()), pooling
    if device.type == "cpu" or "expert" in str(encoder.backbone.config):
        return  # in half precision a borderline token may go to another expert
    for precision, dtype in HALF.items():
        own = states_of(folder, kind, device, dtype)
        for pooling in POOLINGS:
            encoder.pooling = pooling
            found = encoder.encode(SENTENCES, normalize=False, precision=precision)
            expected = pooled(single, pooling)
            # Tiny random models lose more than real ones; the model's own pass shows how much.
            noise = 1 - lowest_cosine(pooled(own, pooling), expected)
            lost = 1 - lowest_cosine(found, expected)
            assert lost < max(5e-4, 3 * noise), (precision, pooling)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "roberta", "modernbert", "llama", "gpt2"])
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler"])
def test_gradients_equal_padded_ones_and_those_on_the_cpu(
    device: torch.device, tiny_encoder_dir: Path, tmp_path: Path, kind: str, pooling: str
) -> None:
    folder = write(tmp_path, tiny_encoder_dir, kind)

    def gradients(where: str, *, padded: bool) -> tuple[dict[str, Tensor], Tensor]:
        encoder = SentenceEncoder.load(folder, pooling=pooling, device=where)
        encoder.set_dropout(0.0)
        encoder.train()
        rows = encoder.tokenize(SENTENCES)[0]
        ids, mask = pad_batch(rows, encoder.tokenizer.pad_token_id)
        ids, mask = ids.to(where), mask.to(where)
        if padded:
            options = {"dtype": torch.float32, "attn_implementation": "eager"}
            model = auto_class(kind).from_pretrained(folder, **options).to(where)
            states = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[..., None] / mask.sum(dim=1)[:, None, None]
            vectors = (states * weight).sum(dim=1) if pooling == "mean" else states[:, 0]
        else:
            assert encoder.batching.packed
            model, vectors = encoder.backbone, encoder(ids, mask)
        direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        (vectors * direction.to(where)).sum().backward()
        named = model.named_parameters()
        return {n: p.grad.cpu() for n, p in named if p.grad is not None}, vectors.detach().cpu()

    found, vectors = gradients(str(device), padded=False)
    for where, padded in ((str(device), True), ("cpu", False)):
        expected, others = gradients(where, padded=padded)
        torch.testing.assert_close(vectors, others, rtol=1e-5, atol=1e-5)
        assert found
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for name, gradient in found.items():
            scale = max(1e-2 * largest, float(expected[name].abs().max()))
            assert float((gradient - expected[name]).abs().max()) <= 1e-4 * scale, (where, name)
