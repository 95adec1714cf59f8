"""Every training method on the device: finite steps, the loss of the CPU, gradient caching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.batching.gradient_cache import GradientCache
from tests.contracts.test_methods import OPTIONS, make_batch
from tests.small_data import sentences

pytestmark = pytest.mark.gpu

# (name, kind of data) of the methods of the package.
CASES = [(name, kind) for name in METHODS for kind in METHODS.resolve(name).reads]
Gradients = dict[str, Tensor]


def make(folder: Path, name: str, device: torch.device) -> Method:
    torch.manual_seed(0)
    encoder = SentenceEncoder.load(folder, device="cpu")
    config = build_config(name, OPTIONS.get(name, {}))
    method: Method = METHODS.resolve(name)(encoder, config)
    return method.to(device).train()


def on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.to(device) for name, part in batch.items()}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_is_finite_and_reaches_every_weight(
    device: torch.device, tiny_encoder_dir: Path, name: str, kind: str
) -> None:
    method = make(tiny_encoder_dir, name, device)
    batch = on(device, make_batch(type(method), method.encoder, kind))
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3, fused=True)
    for progress in (0.3, 0.6):
        output = method(**batch)
        assert output.loss.device.type == device.type
        assert output.loss.isfinite()
        assert all(torch.as_tensor(value).isfinite() for value in output.logs.values())
        output.loss.backward()
        for key, weight in method.named_parameters():
            if weight.requires_grad:
                assert weight.grad is not None, key
                assert weight.grad.isfinite().all(), key
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(progress)
    assert all(part.device.type == device.type for part in method.state_dict().values())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_loss_is_that_of_the_cpu(
    device: torch.device, tiny_encoder_dir: Path, name: str, kind: str
) -> None:
    """In evaluation mode, in which no random numbers are drawn."""
    losses = []
    for where in (torch.device("cpu"), device):
        method = make(tiny_encoder_dir, name, where).eval()
        batch = on(where, make_batch(type(method), method.encoder, kind))
        losses.append(float(method(**batch).loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_autocast_gives_a_finite_loss_in_float32(
    device: torch.device, tiny_encoder_dir: Path, name: str, kind: str
) -> None:
    method = make(tiny_encoder_dir, name, device)
    batch = on(device, make_batch(type(method), method.encoder, kind))
    with torch.autocast(device.type, torch.bfloat16):
        loss = method(**batch).loss
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == torch.float32


# ------------------------------------------------------------------ gradient caching


@pytest.fixture
def simcse(device: torch.device, tiny_encoder_dir: Path) -> Callable[..., tuple[SimCSE, Batch]]:
    """A method and a batch of pairs, both on the device."""

    def build(**options: Any) -> tuple[SimCSE, Batch]:
        torch.manual_seed(0)
        encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
        method = SimCSE(encoder, SimCSEConfig(**options)).to(device).train()
        texts = sentences(24, seed=4)
        rows = [Example((texts[row], texts[row + 12])) for row in range(12)]
        collate = Collator(encoder.tokenize, encoder.tokenizer.pad_token_id, (0, 1))
        return method, Batch(**collate(rows)).to(device)

    return build


def gradients(method: SimCSE, forward: Callable[[], MethodOutput]) -> tuple[float, Gradients]:
    method.zero_grad()
    torch.manual_seed(5)
    loss = forward().loss
    loss.backward()
    named = method.named_parameters()
    return loss.item(), {n: w.grad.clone() for n, w in named if w.grad is not None}


def assert_close(one: Gradients, other: Gradients) -> None:
    """Sums on a GPU come in any order, so that not every bit is the same."""
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in other.values())
    for name in one:
        assert float((one[name] - other[name]).abs().max()) <= 1e-5 * largest, name


def test_caching_equals_the_plain_step_without_dropout(
    simcse: Callable[..., tuple[SimCSE, Batch]],
) -> None:
    method, batch = simcse(dropout=0.0)
    loss, expected = gradients(method, lambda: method(**vars(batch)))
    for tokens, kept in ((1, 0), (40, 60), (9999, 0)):
        cache = GradientCache(tokens, kept_tokens=kept)
        cached, found = gradients(method, lambda cache=cache: cache(method, batch))
        assert cached == pytest.approx(loss, rel=1e-5)
        assert_close(found, expected)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_masks_are_replayed(simcse: Callable[..., tuple[SimCSE, Batch]], half: bool) -> None:
    """Chunks that are embedded twice give the gradients of chunks whose graphs are kept."""
    method, batch = simcse(dropout=0.3)
    kind = batch.input_ids.device.type

    def run(kept: int) -> tuple[float, Gradients]:
        cache = GradientCache(
            24,
            kept_tokens=kept,
            autocast=lambda: torch.autocast(kind, torch.bfloat16, enabled=half),
        )
        return gradients(method, lambda: cache(method, batch))

    loss, expected = run(10_000)
    for kept in (0, 60):
        again, found = run(kept)
        assert again == pytest.approx(loss, rel=1e-6)
        assert_close(found, expected)
    undropped, batch = simcse(dropout=0.0)
    assert gradients(undropped, lambda: undropped(**vars(batch)))[0] != pytest.approx(
        loss, rel=1e-3
    )
