"""Tiny models of every text family that the installed transformers can build from a config."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

__all__ = ["auto_class", "build", "why_no_text_encoder"]

# Every name is set where the default configuration of a family has it.
SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "hidden_size": 32,
    "embedding_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "sliding_window": 4,
    "local_attention": 6,
    # mixtures of experts
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "first_k_dense_replace": 1,
    # latent attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "query_pre_attn_scalar": 8,
    # linear attention and state spaces
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_n_groups": 1,
    "mamba_dt_rank": 4,
    "state_size": 8,
    "time_step_rank": 4,
}


def _class_of(kind: str) -> Any:
    names = MODEL_MAPPING_NAMES[kind]
    return getattr(transformers, names if isinstance(names, str) else names[0])


def why_no_text_encoder(kind: str) -> str:
    """Return why a model type is not a text encoder or decoder; empty for those that are."""
    try:
        parameters = inspect.signature(_class_of(kind).forward).parameters
    except (ImportError, AttributeError):
        return "cannot be imported"
    if "input_ids" not in parameters:
        return "takes no input_ids"
    if "decoder_input_ids" in parameters:
        return "encoder and decoder"
    media = ("pixel", "audio", "image", "video", "speech", "input_features", "input_values")
    if any(word in name for name in parameters for word in media):
        return "not of text alone"
    return ""


def config_of(kind: str, **changes: Any) -> Any:
    """The default configuration of a family with the sizes of this module."""
    config_class = CONFIG_MAPPING[kind]
    if kind in WHOLE:
        return config_class(**WHOLE[kind] | changes)
    default = config_class()
    sizes = {name: value for name, value in SIZES.items() if _has(default, name)}
    if "qk_rope_head_dim" in sizes:  # latent attention has a key for every head
        heads = {"num_key_value_heads": sizes["num_attention_heads"]}
        rope = {"head_dim": sizes["qk_rope_head_dim"]}
        sizes |= {name: value for name, value in (heads | rope).items() if name in sizes}
    layers = sizes.get("num_hidden_layers", 3)
    for name in ("layer_types", "mlp_layer_types"):
        types = vars(default).get(name)
        if isinstance(types, list) and types:
            distinct = sorted(set(types), key=types.index)
            sizes[name] = [distinct[number % len(distinct)] for number in range(layers)]
    return config_class(**sizes | OWN.get(kind, {}) | changes)


def _has(config: Any, name: str) -> bool:
    return getattr(config, name, None) is not None or name in (
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    )


def auto_class(kind: str) -> Any:
    """What opens a family; of T5 and its kin only the encoder."""
    if kind in ("t5", "mt5", "umt5"):
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def build(kind: str, **changes: Any) -> Any:
    """A random model whose attention, norms and sinks all matter, in evaluation mode."""
    torch.manual_seed(0)
    config, auto = config_of(kind, **changes), auto_class(kind)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in auto.from_config(config).parameters())
    if size > 3_000_000:
        raise ValueError(f"{size} weights: OWN must set more sizes")
    model = auto.from_config(config)
    randomize(model)
    return model.eval()


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Matrices keep the scale of their inputs; vectors, such as norms and sinks, vary."""
    for name, weight in model.named_parameters():
        if not weight.is_floating_point():
            continue
        if "sink" in name:
            nn.init.normal_(weight)
        elif weight.dim() >= 2:
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        else:
            weight += 0.2 * torch.randn_like(weight)


_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_MROPE = _ROPE | {"mrope_section": [2, 1, 1]}
_HALF_MROPE = _ROPE | {"mrope_section": [1, 1, 0]}
_EVERY_HEAD = {"num_key_value_heads": 4}

# What single families need besides.
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "bailing_hybrid": {
        "num_expert_group": 1,
        "num_experts_per_token": 2,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
    },
    "codegen": {"rotary_dim": 4},
    "cosmos3_edge_text": {"rope_parameters": _MROPE},
    "cpmant": {"dim_head": 8, "dim_ff": 48, "prompt_length": 4},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "dots1": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    },
    "esm": {"vocab_size": 48, "pad_token_id": 0, "mask_token_id": 4},
    "esmc": _EVERY_HEAD,
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8},
    "glm_image_text": {"rope_parameters": _HALF_MROPE},
    "glm_ocr_text": {"rope_parameters": _HALF_MROPE},
    "glm4v_moe_text": {"rope_parameters": _HALF_MROPE},
    "glm4v_text": {"rope_parameters": _HALF_MROPE},
    "glm5_next_text": _EVERY_HEAD
    | {
        "qk_rope_head_dim": 0,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "index_head_dim": 8,
        "index_n_heads": 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layers_block_type": ["mamba", "attention", "mamba"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl_text": {"head_dim": 8, "rope_parameters": _MROPE},
    "hy_v4_vl_text": {
        "qk_rope_head_dim": 8,
        "head_dim": 8,
        "rope_parameters": _ROPE | {"mrope_section": [2, 1, 1]},
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4, "num_experts_per_token": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "luke": {"entity_vocab_size": 5, "entity_emb_size": 8},
    "lilt": {"max_2d_position_embeddings": 64, "hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "ministral": {"head_dim": 8},
    "mistral4": {
        "rope_parameters": _ROPE
        | {
            "partial_rotary_factor": 1 / 3,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        }
    },
    "moshi": {"ffn_dim": 96},
    "muse_spark_text": {"moe_hidden_size": 32},
    "nemotron": {"num_key_value_heads": 2},
    "qwen2_5_vl_text": {"rope_parameters": _MROPE},
    "qwen2_vl_text": {"rope_parameters": _MROPE},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
    },
    "reformer": {
        "attn_layers": ["local", "lsh", "local"],
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (8, 8),
        "attention_head_size": 8,
        "feed_forward_size": 48,
        "num_buckets": 4,
        "hash_seed": 1,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 48,
        "shape_embed_dim": 8,
        "shape_vocab_size": 48,
    },
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
_GEMMA = {
    name: SIZES[name]
    for name in (
        "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_size", "head_dim",
        "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "sliding_window",
    )
}  # fmt: skip
_GEMMA["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"]
# Families whose default configuration cannot serve as a start.
WHOLE: dict[str, dict[str, Any]] = {
    "cohere_compass_text": _GEMMA
    | {"layer_types": ["full_attention"] * 3, "rope_parameters": {"full_attention": _ROPE}},
    "dbrx": {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 64,
        "vocab_size": 48,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "embedding_gemma2_text": _GEMMA | {"hidden_size_per_layer_input": 8, "embedding_dim": 32},
    "falcon": {
        "vocab_size": 48,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "funnel": {
        "architectures": ["FunnelModel"],
        "vocab_size": 48,
        "block_sizes": (1, 1),
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
        "block_repeats": [1, 1],
    },
    "gemma3n_text": _GEMMA
    | {
        "vocab_size_per_layer_input": 48,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "num_hidden_layers": 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [48] * 4,
        "num_kv_shared_layers": 2,
    },
    "gemma4_text": _GEMMA | {"vocab_size_per_layer_input": 48, "hidden_size_per_layer_input": 8},
    "gemma4_unified_text": _GEMMA
    | {"vocab_size_per_layer_input": 48, "hidden_size_per_layer_input": 8},
    "xlnet": {
        "vocab_size": 48,
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "pad_token_id": 0,
    },
    "xlstm": {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 2},
    "zamba": {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
        "pad_token_id": 0,
    },
    "zamba2": {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "mamba_d_state": 8,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "adapter_rank": 4,
        "n_mamba_heads": 8,
        "use_mamba_kernels": False,
        "chunk_size": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    },
}
