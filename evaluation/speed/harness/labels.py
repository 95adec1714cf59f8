"""Names of the variants, as tables and plots show them."""

from __future__ import annotations

LABELS = {
    "ours": "**simcse_kit**",
    "ours-fp32": "**simcse_kit** fp32",
    "ours-bf16": "**simcse_kit** bf16",
    "ours-int8": "**simcse_kit** int8",
    "ours-openvino-fp32": "**simcse_kit**, exported to OpenVINO",
    "ours-openvino-int8": "**simcse_kit**, exported to OpenVINO int8",
    "ours-onnx-fp32": "**simcse_kit**, exported to ONNX",
    "ours-mean-pooling": "**simcse_kit**, mean pooling, no head",
    "st": "sentence-transformers",
    "st-default": "sentence-transformers, defaults",
    "st-best-batch": "sentence-transformers, best batch size",
    "st-onnx": "sentence-transformers, ONNX",
    "st-openvino": "sentence-transformers, OpenVINO f32",
    "st-bf16": "sentence-transformers, bf16",
    "st-openvino-bf16": "sentence-transformers, OpenVINO bf16",
    "st-openvino-int8": "sentence-transformers, OpenVINO int8",
    "st-onnx-int8": "sentence-transformers, ONNX int8",
    "st-trainer": "sentence-transformers' trainer",
    "st-batch-32": "sentence-transformers, batches of 32",
    "original": "original SimCSE step",
    "original-eager": "original SimCSE step, eager attention",
    "original-sdpa": "original SimCSE step, SDPA attention",
    "python-alone": "Python alone",
}


def label(name: str) -> str:
    return LABELS.get(name, name)
