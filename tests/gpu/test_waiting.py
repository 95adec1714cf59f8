"""Training steps and encoding batches in which the host never waits for the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import simcse_kit
from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import pack_rows
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.contrast import DataSpec
from tests.contracts.test_methods import HARD_NEGATIVES, OPTIONS
from tests.small_data import run_config, sentences, write_corpus

pytestmark = pytest.mark.gpu

CASES = [(name, METHODS.resolve(name).reads[0]) for name in METHODS]
TEXTS = sentences(24, seed=3)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Make every operation that waits for the GPU an error; on the CPU nothing is checked."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_of_a_method_does_not_wait(
    device: torch.device, tiny_encoder_dir: Path, name: str, kind: str
) -> None:
    torch.manual_seed(0)
    encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
    method = METHODS.resolve(name)(encoder, build_config(name, OPTIONS.get(name, {})))
    method.to(device).train()
    several = kind in ("triplets", "documents")
    views = method.views(DataSpec(kind, HARD_NEGATIVES if several else 0))
    label = 1.0 if kind == "labelled" else None
    rows = [Example(tuple(TEXTS[row : row + 4]), label) for row in range(8)]
    collate = Collator(encoder.tokenize, encoder.tokenizer.pad_token_id, views)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3, fused=True)
    for step in range(3):
        batch = Batch(**collate(rows))
        # The first step makes what later ones keep, such as constants on the device.
        with no_waiting(device if step else torch.device("cpu")):
            moved = batch.to(device)
            output = method(**vars(moved))
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(0.5)
    assert output.loss.isfinite()


class NoWaiting(TrainerCallback):
    """Make waiting an error from the begin of a step to its end, after the first step."""

    def __init__(self, cuda: bool):
        self.cuda, self.steps = cuda, 0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.cuda and self.steps:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps += 1
        if self.cuda:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "cached"])
def test_a_step_of_the_trainer_does_not_wait(
    device: torch.device, tiny_encoder_dir: Path, tmp_path: Path, chunked: bool
) -> None:
    settings: dict[str, Any] = {"log_every": 100, "max_steps": 6}
    if chunked:
        settings["chunk_tokens"] = 40
    config = run_config(
        tiny_encoder_dir,
        write_corpus(tmp_path),
        tmp_path / "out",
        {"training": settings, "evaluation": {"held_out": 0, "trace_every": 0, "every": 100}},
    )
    watch = NoWaiting(device.type == "cuda")
    try:
        simcse_kit.train(config, callbacks=[watch], report=False)
    finally:
        if watch.cuda:
            torch.cuda.set_sync_debug_mode("default")
    assert watch.steps == 6


@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler"])
def test_an_encoding_batch_does_not_wait(
    device: torch.device, tiny_encoder_dir: Path, pooling: str
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling=pooling, device=str(device))
    expected = encoder.encode(TEXTS, normalize=False)
    rows = encoder.tokenize(TEXTS)[0]
    with torch.inference_mode():
        encoder.eval()
        for turn in range(2):
            with no_waiting(device if turn else torch.device("cpu")):
                tokens, layout = pack_rows(rows, device)
                vectors = encoder.forward_packed(tokens, layout, None)
    torch.testing.assert_close(vectors.cpu(), torch.from_numpy(expected), rtol=0, atol=1e-5)
