"""Measurements without another system: the rate of products, gradient caching, InfoNCE."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu.models import model_folder, sentences

TAU = 0.05


def seconds_of(run: Callable[[], object], device: str, rounds: int, warm_up: int = 1) -> float:
    """Return the median time of a call, until the device has finished."""
    times = []
    for _ in range(rounds + warm_up):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[warm_up:])


def rate(params: dict[str, Any], rounds: Any) -> None:
    """Measure the practical rate of large matrix products in bf16 and fp32."""
    rounds.ready()
    rounds.wait()
    size, found = 256 if params["quick"] else 8192, {}
    for name in ("bfloat16", "float32"):
        left, right = torch.randn(2, size, size, device=params["device"]).to(getattr(torch, name))
        seconds = seconds_of(lambda left=left, right=right: left @ right, params["device"], 10, 3)
        found[f"{name}_tflops"] = round(2 * size**3 / seconds / 1e12, 3)
    rounds.done(**found)
    rounds.wait()


def gradient_cache(params: dict[str, Any], rounds: Any) -> None:
    """Measure whole steps with and without chunks, at a batch that fits both."""
    from simcse_kit import SentenceEncoder
    from simcse_kit.data.collate import Collator
    from simcse_kit.data.readers import Example
    from simcse_kit.methods.common.batch import Batch
    from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
    from simcse_kit.training.batching.gradient_cache import GradientCache

    device, quick = torch.device(params["device"]), params["quick"]
    folder = model_folder("tiny" if quick else "minilm", Path(params["work"]))
    size, chunk = (32, 128) if quick else (2048, 16_384)
    encoder = SentenceEncoder.load(folder, device=params["device"])
    method = SimCSE(encoder, SimCSEConfig()).to(device).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-6, fused=True)
    collate = Collator(
        lambda texts: encoder.tokenize(texts, max_length=32), encoder.tokenizer.pad_token_id, (0,)
    )
    rows = [Example((text,)) for text in sentences(size, median=14, spread=0.4)]
    batch = Batch(**collate(rows)).to(device)
    given = {name: getattr(batch, name) for name in ("input_ids", "attention_mask")}
    given |= {name: getattr(batch, name) for name in ("text_ids", "view_mask")}

    def half() -> Any:
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    cache = GradientCache(chunk, autocast=half)

    def plain() -> Any:
        with half():
            return method(**given)

    def step(forward: Callable[[], Any]) -> None:
        forward().loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    rounds.ready()
    rounds.wait()
    ways = {"plain": plain, "cached": lambda: cache(method, batch)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(6 if not quick else 2):
        for name, forward in ways.items():
            took = seconds_of(lambda forward=forward: step(forward), params["device"], 1, 0)
            if number:
                times[name].append(took)
    medians = {name: statistics.median(of) for name, of in times.items()}
    rounds.done(
        batch=size,
        chunk_tokens=chunk,
        seconds=medians,
        ratio=round(medians["cached"] / medians["plain"], 3),
    )
    rounds.wait()


def info_nce(params: dict[str, Any], rounds: Any) -> None:
    """Measure InfoNCE, forward and backward, against its matrix products alone."""
    from simcse_kit.losses.contrastive_batch import ContrastiveBatch
    from simcse_kit.losses.info_nce import info_nce as loss_of

    device, rows, dim = params["device"], 512 if params["quick"] else 65_536, 384
    anchors = torch.randn(rows, dim, device=device, requires_grad=True)
    noise = torch.randn(rows, dim, device=device)
    positives = (0.8 * noise + anchors.detach()).requires_grad_()
    strip = min(rows, 8192)

    def products() -> None:
        """Scores by strips; then the gradients of both sides from a matrix of the same size."""
        with torch.no_grad():
            gradient = torch.zeros_like(anchors)
            for start in range(0, rows, strip):
                some = positives[start : start + strip]
                scores = anchors @ some.T
                scores.T @ anchors
                gradient.addmm_(scores, some)

    def loss() -> None:
        anchors.grad = positives.grad = None
        loss_of(ContrastiveBatch(anchors, positives, temperature=TAU)).loss.backward()

    rounds.ready()
    rounds.wait()
    found = {
        name: seconds_of(run, device, 3) for name, run in (("loss", loss), ("alone", products))
    }
    ratio = round(found["loss"] / found["alone"], 3)
    rounds.done(rows=rows, dim=dim, seconds=found, ratio=ratio)
    rounds.wait()
