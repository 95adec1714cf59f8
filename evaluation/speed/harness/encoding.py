"""Encoding, in fp32 and in other precisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.driver import Rotation, Variant
from harness.environment import cpu_flags
from harness.models import NAMES, model_folder
from harness.stats import summary
from harness.task import Bench
from harness.texts import token_statistics

BATCH_SIZES = [8, 16, 32, 64, 128]
COMPARED = 500


def _texts(bench: Bench, kind: str, count: int) -> tuple[list[str], str]:
    data = bench.data
    if kind == "sts":
        source = "sts.tsv (sample data)" if data.is_sample else "seven STS test sets"
        return data.sts_sentences(count), f"distinct sentences of {source}"
    name = data.name(data.sentences)
    if kind == "long":
        text = f"consecutive sentences of {name} joined, log-normal, median 24 words"
        return data.long_tailed(count, 24, 0.8), text
    return data.varied(count), f"distinct sentences, evenly from {name}"


def _encode_settings(
    bench: Bench, model: str, kind: str, sentences: int
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the settings to record, the parameters of every variant, and the texts."""
    folder = model_folder(model, bench.work)
    texts, source = _texts(bench, kind, bench.count(sentences))
    recipe = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    settings = {
        "model": NAMES[model],
        "texts": source,
        "sentences": len(texts),
        "tokens": token_statistics(texts, folder, recipe["max_seq_length"]),
    }
    path = bench.hand_over(f"texts-{model}-{kind}.json", texts)
    sizes = BATCH_SIZES[1:4] if bench.quick else BATCH_SIZES
    return settings, {"model": str(folder), "texts": path, "sizes": sizes}, texts


def _st(name: str, params: dict[str, Any], python: str = "main", **more: Any) -> Variant:
    return Variant(name, "encode:sentence_transformers", {**params, **more}, python)


def _encode(
    bench: Bench, key: str, variants: list[Variant], texts: list[str], reference: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run all variants, and compare their vectors with those of ``reference``. With several
    precisions, also score them on STS-B. Return the results and the graded pairs."""
    graded = _graded(bench)
    asked = texts[:COMPARED]
    with Rotation(variants, bench.setting, key) as rotation:
        rotation.run(bench.rounds)
        vectors = rotation.vectors(asked)
        of_graded = rotation.vectors(graded["sentences"]) if _precisions(variants) else {}
        found = {name: summary(record) for name, record in rotation.records.items()}
    for name, result in found.items():
        if "not_run" in result:
            continue
        result["sentences_per_second"] = round(len(texts) / result["wall"]["median"], 1)
        if reference in vectors:
            difference = float(np.abs(vectors[name] - vectors[reference]).max())
            result["max_difference"] = float(f"{difference:.2g}")
        if name in of_graded:
            result["sts_spearman"] = round(_spearman(graded, of_graded[name]), 3)
    return found, graded


def _precisions(variants: list[Variant]) -> bool:
    return any("int8" in variant.name for variant in variants)


def _graded(bench: Bench) -> dict[str, Any]:
    """Return distinct sentences of the STS-B test, or the sample file, and pairs as positions."""
    name, (pairs,) = next(iter(bench.data.sts_tasks("STSB").items()))
    name, count = (f"{name}, 100 pairs", 100) if bench.quick else (name, len(pairs))
    texts = [side[:count] for side in (pairs.sentences1, pairs.sentences2)]
    at = {text: n for n, text in enumerate(dict.fromkeys([*texts[0], *texts[1]]))}
    sides = [[at[text] for text in side] for side in texts]
    return {"name": name, "sentences": list(at), "sides": sides, "gold": pairs.gold[:count]}


def _spearman(graded: dict[str, Any], vectors: Any) -> float:
    from simcse_kit.metrics.correlation import paired_cosine, spearman

    left, right = (vectors[side] for side in graded["sides"])
    return float(spearman(paired_cosine(left, right), graded["gold"]))


def fp32(model: str, kind: str, sentences: int) -> Callable[[Bench, str], dict[str, Any]]:
    def run(bench: Bench, key: str) -> dict[str, Any]:
        settings, params, texts = _encode_settings(bench, model, kind, sentences)
        variants = [
            Variant("ours", "encode:ours", params),
            _st("st-default", params),
            _st("st-best-batch", params, batch="best"),
            _st("st-onnx", params, "onnx", backend="onnx", batch="best"),
            _st("st-openvino", params, "openvino", backend="openvino", batch="best"),
        ]
        found, _ = _encode(bench, key, variants, texts, "ours")
        return {"settings": settings, "variants": found}

    return run


def low_precision(bench: Bench, key: str) -> dict[str, Any]:
    settings, params, texts = _encode_settings(bench, "minilm", "varied", 2000)
    # The calibration sentences are taken between the measured ones.
    calibration = bench.work / "calibration.txt"
    offset = max(1, len(bench.data.lines()) // (2 * len(texts)))
    others = set(bench.data.varied(300, offset)) - set(texts)
    calibration.write_text("".join(f"{text}\n" for text in sorted(others)), encoding="utf-8")
    params["calibration"] = str(calibration)
    onnx_kernels = "avx512_vnni" if "avx512_vnni" in cpu_flags() else "avx2"

    def exported(form: str, *, int8: bool) -> Variant:
        name = f"ours-{form}-{'int8' if int8 else 'fp32'}"
        return Variant(name, "encode:exported", {**params, "format": form, "int8": int8})

    openvino = {"backend": "openvino", "batch": "best"}
    variants = [
        Variant("ours-fp32", "encode:ours", params),
        Variant("ours-bf16", "encode:ours", {**params, "precision": "bf16"}),
        Variant("ours-int8", "encode:ours", {**params, "precision": "int8"}),
        exported("openvino", int8=False),
        exported("openvino", int8=True),
        exported("onnx", int8=False),
        _st("st-default", params),
        _st("st-bf16", params, batch="best", dtype="bfloat16"),
        _st("st-openvino-bf16", params, "openvino", **openvino, dtype="bfloat16"),
        _st("st-openvino-int8", params, "openvino", **openvino, int8=True),
        _st("st-onnx-int8", params, "onnx", backend="onnx", batch="best", int8=onnx_kernels),
    ]
    found, graded = _encode(bench, key, variants, texts, "ours-fp32")
    settings |= {"calibration": f"{len(others)} other sentences", "graded": graded["name"]}
    settings["st_onnx_int8"] = onnx_kernels
    return {"settings": settings, "variants": found}
