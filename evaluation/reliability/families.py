"""Vectors of tiny random models on a device, against their own eager ones on the CPU.

python evaluation/reliability/families.py --device cuda

One line a family, precision and pooling: all texts in one batch, encoded and as a pass of training
without dropout, against the model's own float32 states of one text at a time. In half precision the
difference may be twice that of the model's own pass on the device. Exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from simcse_kit import SentenceEncoder
from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.errors import SimcseError

TOKENIZER = SentenceEncoder.load("mini").tokenizer
BASE: dict[str, Any] = {
    "vocab_size": len(TOKENIZER) + 1,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
DECODER = BASE | {"num_key_value_heads": 2, "head_dim": 16}
BOTH_WAYS = {"is_causal": False, "sliding_window": 5}
SOME_LAYERS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
LATENT = BASE | {
    **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8},
    **{"qk_nope_head_dim": 8, "v_head_dim": 16, "head_dim": 8, "n_routed_experts": 4},
    **{"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "first_k_dense_replace": 1,
}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("bert", BASE),
    ("roberta", BASE),
    ("mpnet", BASE),
    ("distilbert", BASE),
    ("albert", BASE | {"embedding_size": 32}),
    ("electra", BASE | {"embedding_size": 32}),
    ("gpt2", {"vocab_size": len(TOKENIZER), "n_embd": 64, "n_layer": 3, "n_head": 4}),
    ("modernbert", BASE | {"local_attention": 6, "global_attn_every_n_layers": 2}),
    ("nomic_bert", BASE),
    ("eurobert", DECODER),
    ("llama", DECODER),
    ("llama bidirectional", DECODER | {"is_causal": False}),
    ("llama, heads of 24", DECODER | {"head_dim": 24}),
    ("llama, heads of 12", DECODER | {"head_dim": 12}),
    ("mistral, window", DECODER | {"sliding_window": 5}),
    ("mistral, window both ways", DECODER | BOTH_WAYS),
    ("qwen2, window both ways", DECODER | BOTH_WAYS | SOME_LAYERS | {"use_sliding_window": True}),
    ("qwen3, window", DECODER | SOME_LAYERS | {"sliding_window": 4, "use_sliding_window": True}),
    ("qwen3, window both ways", DECODER | BOTH_WAYS | SOME_LAYERS | {"use_sliding_window": True}),
    ("gemma3_text", DECODER | SOME_LAYERS | {"sliding_window": 5}),
    ("gemma2, softcap", DECODER | {"query_pre_attn_scalar": 16, "sliding_window": 5}),
    ("gpt_oss, sinks", DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("deepseek_v3, wide values", LATENT | {"v_head_dim": 24}),
    ("deepseek_v3", LATENT),
    ("mixtral", DECODER | {"num_local_experts": 4}),
    ("olmo2", DECODER),
    ("phi3", DECODER),
    ("cohere2", DECODER | {"sliding_window": 4}),
    ("bloom, ALiBi", {"vocab_size": len(TOKENIZER), "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    ("fnet", BASE),
    ("squeezebert", BASE | {"embedding_size": 64}),
]
TEXTS = [
    "A dog runs on the beach.",
    "Where is the station?",
    "Prices rose sharply in the last quarter, say the analysts of the bank.",
    "yes",
    "The man who sold the old red car to his neighbour wanted to buy a bicycle that day.",
]
# Largest difference, relative to the largest component.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.2e-1}


def write_model(name: str, options: dict[str, Any], folder: str) -> None:
    """A random model, at a scale at which attention matters."""
    torch.manual_seed(0)
    kind = name.partition(",")[0].split()[0]
    config = transformers.AutoConfig.for_model(kind, **options)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "sink" in key:
                torch.nn.init.normal_(weight)
            elif weight.dim() >= 2:
                torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
            else:
                weight += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)


def own_vectors(
    folder: str, rows: list[list[int]], pooling: str, device: str, dtype: torch.dtype
) -> Tensor:
    """The model's own eager states, pooled, one text at a time."""
    options = {"dtype": dtype, "attn_implementation": "eager"}
    model = transformers.AutoModel.from_pretrained(folder, **options).eval().to(device)
    found = []
    for row in rows:
        ids = torch.tensor([row], device=device)
        with torch.no_grad():
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        states = output.last_hidden_state[0].float().cpu()
        found.append(states.mean(0) if pooling == "mean" else states[0])
    return torch.stack(found)


def compared(folder: str, device: str, dtype: torch.dtype, pooling: str) -> tuple[bool, str]:
    """Whether the vectors are right, and a line that says how far they are off."""
    encoder = SentenceEncoder.load(folder, pooling=pooling, device=device).to(dtype)
    rows = encoder.tokenize(TEXTS)[0]
    expected = own_vectors(folder, rows, pooling, "cpu", torch.float32)
    largest = expected.abs().max()

    def off(vectors: Tensor) -> Tensor:
        """The largest difference of each text."""
        return (vectors.float().cpu() - expected).abs().amax(dim=1) / largest

    encoded = off(encoder.encode(TEXTS, normalize=False, to="torch"))
    encoder.set_dropout(0.0)
    encoder.train()
    ids, mask = pad_batch(rows, encoder.tokenizer.pad_token_id)
    vectors = encoder(ids.to(device), mask.to(device))
    vectors.float().sum().backward()
    trained = off(vectors.detach())
    allowed, noise = TOLERANCES[dtype], 0.0
    if dtype != torch.float32:
        noise = float(off(own_vectors(folder, rows, pooling, device, dtype)).max())
        allowed = max(allowed, 2 * noise)
    worst = torch.maximum(encoded, trained)
    # In half precision a token near a border may go to another expert: most texts must be right.
    experts = dtype != torch.float32 and "expert" in str(encoder.backbone.config)
    right = bool((worst.median() if experts else worst.max()) <= allowed)
    batching = encoder.batching
    way = "packed" if batching.packed else batching.unpacked.value
    line = f"{way}; off by {encoded.max():.1e} encoding, {trained.max():.1e} training"
    return right, line + (f"; the model itself by {noise:.1e}" if noise else "")


def lines(device: str, dtypes: list[torch.dtype]) -> Iterator[tuple[bool, str]]:
    for name, options in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            write_model(name, options, folder)
            for dtype in dtypes:
                for pooling in ("mean", "cls_before_pooler"):
                    label = f"{name}; {str(dtype)[6:]}; {pooling}"
                    try:
                        right, line = compared(folder, device, dtype, pooling)
                    except SimcseError as error:
                        yield True, f"{label}: refused: {error!s:.120}"
                    else:
                        yield right, f"{label}: {'right' if right else 'WRONG'}; {line}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--families", type=int, default=len(FAMILIES), help="only the first N")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    print(f"{gpu}, torch {torch.__version__}, transformers {transformers.__version__}")
    del FAMILIES[arguments.families :]
    dtypes = list(TOLERANCES) if arguments.device != "cpu" else [torch.float32]
    wrong = total = 0
    for right, line in lines(arguments.device, dtypes):
        print(line, flush=True)
        wrong, total = wrong + (not right), total + 1
    print(f"{total} lines, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
