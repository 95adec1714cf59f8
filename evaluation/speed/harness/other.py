"""The tasks for STS scoring and for start-up."""

from __future__ import annotations

from typing import Any

from harness.driver import Variant
from harness.models import NAMES, model_folder
from harness.task import Bench, run_rounds


def scoring(bench: Bench, key: str) -> dict[str, Any]:
    folder = model_folder("minilm", bench.work)
    tasks = "STSB" if bench.quick else "sts"
    params = {"model": str(folder), "shared": str(bench.shared), "tasks": tasks}
    variants = [
        Variant("ours", "scoring:ours", params),
        Variant("st-default", "scoring:sentence_transformers", params),
        Variant("st-batch-32", "scoring:sentence_transformers", {**params, "batch": 32}),
    ]
    warm_up = 0 if bench.quick else 1
    found = run_rounds(bench, key, variants, min(3, bench.rounds), warm_up)
    for result in found.values():
        if "round_notes" in result:
            result["scores"] = result.pop("round_notes")[-1]["scores"]
    settings = {"model": NAMES["minilm"], "tasks": tasks}
    settings["texts"] = "sts.tsv (sample data)" if bench.data.is_sample else "STS test sets"
    return {"settings": settings, "variants": found}


def _commands(bench: Bench, key: str, commands: dict[str, list[str]]) -> dict[str, Any]:
    params = {"work": str(bench.work)}
    variants = [
        Variant(name, "startup:command", {**params, "command": command})
        for name, command in commands.items()
    ]
    settings = {"what": "whole processes, compiled files and page cache warm"}
    return {"settings": settings, "variants": run_rounds(bench, key, variants, bench.rounds)}


def import_time(bench: Bench, key: str) -> dict[str, Any]:
    modules = {"ours": "simcse_kit", "st": "sentence_transformers", "python-alone": "sys"}
    commands = {name: ["{python}", "-c", f"import {mod}"] for name, mod in modules.items()}
    return _commands(bench, key, commands)


def encode_one(bench: Bench, key: str) -> dict[str, Any]:
    sentence = "A man is playing a guitar."
    (bench.work / "one.txt").write_text(f"{sentence}\n", encoding="utf-8")
    mini = model_folder("mini", bench.work).relative_to(bench.work)
    peer = (
        "from sentence_transformers import SentenceTransformer; import numpy; numpy.save("
        f"'{{work}}/one.npy', SentenceTransformer('{{work}}/{mini}').encode([{sentence!r}]))"
    )
    ours = ["{python}", "-m", "simcse_kit", "encode", "mini", "{work}/one.txt"]
    ours += ["--output", "{work}/one.npy"]
    return _commands(bench, key, {"ours": ours, "st": ["{python}", "-c", peer]})
