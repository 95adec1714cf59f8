"""Where the time of a training step and of the encode loop goes, and how fast the products are.

    OMP_NUM_THREADS=1 python evaluation/speed/where_time_goes.py [--model DIR] [--texts FILE]

One thread, so that operators do not overlap. Writes results-profile.json beside this file. The
limit is the speed of the same products alone, in a loop whose data stays in the cache.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gradient_cache import TEXTS, default_model
from torch.profiler import ProfilerActivity, profile

from simcse_kit import SentenceEncoder
from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig

HERE = Path(__file__).resolve().parent
BATCH, LENGTH, SENTENCES, REPEATS = 64, 32, 1000, 4
PRODUCTS = ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm")
KINDS = {
    "attention": ("bmm", "softmax", "scaled_dot", "_DroppedAttention"),
    "activation": ("gelu", "tanh"),
    "LayerNorm": ("layer_norm",),
    "optimizer and clipping": ("adamw", "Optimizer", "norm", "_foreach"),
    "dropout": ("_AddDropped", "bernoulli", "ge", "addcmul"),
}


def kind_of(name: str) -> str:
    if name in PRODUCTS:
        return "products of the linear maps"
    short = name.removeprefix("aten::")
    for kind, words in KINDS.items():
        if any(short == word or (len(word) > 2 and word in short) for word in words):
            return kind
    return "copies, fills, sums and the rest"


def profiled(run: Callable[[], object]) -> dict[str, Any]:
    run()
    with profile(activities=[ProfilerActivity.CPU], with_flops=False) as found:
        for _ in range(REPEATS):
            run()
    shares: dict[str, float] = {}
    for event in found.key_averages():
        kind = kind_of(event.key)
        shares[kind] = shares.get(kind, 0.0) + event.self_cpu_time_total / 1e6 / REPEATS
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return {"seconds": total, "share": {kind: value / total for kind, value in ordered}}


def limit(width: int, inner: int) -> float:
    """GFLOP/s of a product of the model's own size, its weights prepared, 512 tokens."""
    from simcse_kit.encoder.packing.linear import prepared

    layer = torch.nn.Linear(width, inner)
    states, best = torch.randn(512, width), float("inf")
    with torch.inference_mode():
        run = prepared(layer)
        for _ in range(200):
            start = time.perf_counter()
            run(states)
            best = min(best, time.perf_counter() - start)
    return 2 * 512 * width * inner / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=default_model())
    parser.add_argument("--texts", type=Path, default=next(p for p in TEXTS if p.is_file()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.texts.read_text(encoding="utf-8").strip().split("\n")
    texts = lines[:: max(1, len(lines) // SENTENCES)][:SENTENCES]
    encoder = SentenceEncoder.load(options.model, pooling="cls_before_pooler")
    method = SimCSE(encoder, SimCSEConfig()).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-5, fused=True)
    collate = Collator(
        lambda rows: encoder.tokenize(rows, max_length=LENGTH), encoder.tokenizer.pad_token_id, (0,)
    )
    batch = Batch(**collate([Example((text,)) for text in texts[:BATCH]]))

    def step() -> None:
        method(**vars(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    config = encoder.backbone.config
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    last_for_first_token = 2 * config.hidden_size**2
    tokens = 2 * int(batch.attention_mask.sum())
    per_token = 2 * ((config.num_hidden_layers - 1) * layer + last_for_first_token)
    training = profiled(step)
    training["tokens"], training["padded_tokens"] = tokens, 2 * batch.attention_mask.numel()
    mean = SentenceEncoder.load(options.model, pooling="mean")
    encoding = profiled(lambda: mean.encode(texts))
    encoding["tokens"] = sum(map(len, mean.tokenize(texts)[0]))
    for found, work in (
        (training, 3 * tokens * per_token),
        (encoding, 2 * encoding["tokens"] * config.num_hidden_layers * layer),
    ):
        seconds = found["seconds"] * found["share"]["products of the linear maps"]
        found["gflops_of_products"] = work / seconds / 1e9
    document = {
        "training_step": training,
        "encoding": encoding,
        "gflops_limit": limit(config.hidden_size, config.intermediate_size),
        "settings": {"batch": BATCH, "length": LENGTH, "sentences": len(texts), "threads": 1},
    }
    print(json.dumps(document, indent=1))
    target = HERE / "results-profile.json"
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
