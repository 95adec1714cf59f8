"""The systems that are compared, by task: name, function and its own parameters."""

from __future__ import annotations

from typing import Any

System = tuple[str, dict[str, Any]]
OURS, PEER, ORIGINAL = (
    "variants.training:ours",
    "variants.training:sentence_transformers",
    "variants.original:steps",
)
OUR_ENCODER, PEER_ENCODER = "variants.encode:ours", "variants.encode:sentence_transformers"
BATCHES = [128, 512, 2048]


def has_setting(name: str) -> bool:
    """Whether the installed version has a training setting."""
    from simcse_kit.config import TrainingSection

    return name in TrainingSection.model_fields


def training_systems(*, cuda: bool) -> dict[str, System]:
    """Return the training steps to compare; on the CPU in fp32 only."""

    def ours(**settings: Any) -> System:
        if not cuda:
            settings |= {"device": "cpu"} if has_setting("device") else {}
        return OURS, {"config": {"training": settings}}

    systems = {
        "ours-fp32": ours(precision="fp32"),
        "st-fp32": (PEER, {}),
        "original-fp32": (ORIGINAL, {"attention": "sdpa"}),
    }
    if not cuda:
        return systems
    half = {
        "ours-bf16": ours(precision="bf16"),
        "st-bf16": (PEER, {"bf16": True}),
        "original-bf16": (ORIGINAL, {"attention": "sdpa", "bf16": True}),
    }
    if has_setting("compile"):
        half["ours-bf16-compile"] = ours(precision="bf16", compile=True)
    return half | systems


def encoding_systems(*, cuda: bool) -> dict[str, System]:
    """Return the encoders to compare; on the CPU in fp32 only."""
    systems = {
        "ours-fp32": (OUR_ENCODER, {}),
        "st-fp32": (PEER_ENCODER, {}),
        "st-fp32-best": (PEER_ENCODER, {"batch": "best"}),
    }
    if not cuda:
        return systems
    return systems | {
        "ours-bf16": (OUR_ENCODER, {"precision": "bf16"}),
        "ours-fp16": (OUR_ENCODER, {"precision": "fp16"}),
        "st-fp16-best": (PEER_ENCODER, {"batch": "best", "dtype": "float16"}),
        "st-bf16-best": (PEER_ENCODER, {"batch": "best", "dtype": "bfloat16"}),
    }
