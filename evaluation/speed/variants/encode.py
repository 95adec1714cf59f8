"""Encoding with this kit, its exported folders, and sentence-transformers with its backends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from variants.threads import THREADS, pin


def ours(params: dict[str, Any], rounds: Any) -> None:
    """Run ``SentenceEncoder.encode`` with its defaults; ``precision`` and ``device`` if given."""
    from simcse_kit import SentenceEncoder

    pin()
    options = {key: params[key] for key in ("precision",) if key in params}
    encoder = SentenceEncoder.load(params["model"], device=params.get("device", "cpu"))
    _serve(lambda texts: encoder.encode(texts, **options), params, rounds)


def exported(params: dict[str, Any], rounds: Any) -> None:
    """Encode with a folder that ``simcse export`` makes before the rounds."""
    from simcse_kit import SentenceEncoder

    pin()
    began = time.perf_counter()
    folder = Path.cwd() / f"exported-{params['format']}-{'int8' if params['int8'] else 'fp32'}"
    command = [sys.executable, "-m", "simcse_kit", "export", params["model"]]
    command += ["--format", params["format"], "--output", str(folder)]
    if params["int8"]:
        command += ["--int8", "--calibration", params["calibration"]]
    if not folder.is_dir():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            _explain(done.stderr)
    encoder = SentenceEncoder.load(folder)
    seconds = round(time.perf_counter() - began, 1)
    _serve(encoder.encode, params, rounds, export_seconds=seconds)


class NotAvailable(Exception):  # noqa: N818 - not an error of the measurement
    """An optional package is not installed."""


def _explain(stderr: str) -> None:
    lines = [line for line in stderr.strip().splitlines() if line.strip(" │╭╰─╮╯")]
    last = lines[-1].strip(" │") if lines else "no message"
    if "pip install" in last or "No such command" in stderr:
        raise NotAvailable(f"simcse export: {last}")
    raise RuntimeError(f"simcse export: {last}")


def sentence_transformers(params: dict[str, Any], rounds: Any) -> None:
    """Run SentenceTransformer.encode with one of its backends and precisions.

    ``batch`` is a size, None for the default, or "best" for the fastest of ``sizes``.
    """
    pin()
    model = _open(params)
    notes: dict[str, Any] = {}
    batch = params.get("batch")
    if batch == "best":
        batch, notes["batch_sweep"] = _best_batch(model, params)
        notes["batch"] = batch
    options: dict[str, Any] = {"show_progress_bar": False}
    if batch is not None:
        options["batch_size"] = batch
    _serve(lambda texts: model.encode(texts, **options), params, rounds, **notes)


def _serve(
    encode: Callable[[list[str]], Any], params: dict[str, Any], rounds: Any, **notes: Any
) -> None:
    texts = json.loads(Path(params["texts"]).read_text(encoding="utf-8"))
    rounds.ready(encode, **notes)
    while True:
        rounds.wait()
        encode(texts)
        rounds.done()


def _best_batch(model: Any, params: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Time two passes over a quarter of the texts for each size; the second pass counts."""
    texts = json.loads(Path(params["texts"]).read_text(encoding="utf-8"))
    part = texts[:: max(1, min(4, len(texts) // 256))]
    seconds = {}
    for size in params["sizes"]:
        for _ in range(2):
            began = time.perf_counter()
            model.encode(part, batch_size=size, show_progress_bar=False)
            seconds[size] = round(time.perf_counter() - began, 4)
    return min(seconds, key=lambda size: seconds[size]), {str(k): v for k, v in seconds.items()}


# ---------------------------------------------------------------- opening sentence-transformers


def _open(params: dict[str, Any]) -> Any:
    openers = {"torch": _open_torch, "onnx": _open_onnx, "openvino": _open_openvino}
    return openers[params.get("backend", "torch")](params)


def _load(folder: str | Path, **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), **{"device": "cpu"} | options)


def _open_torch(params: dict[str, Any]) -> Any:
    import torch

    kwargs = {"dtype": getattr(torch, params["dtype"])} if "dtype" in params else None
    return _load(params["model"], model_kwargs=kwargs, device=params.get("device", "cpu"))


def _open_onnx(params: dict[str, Any]) -> Any:
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = THREADS
    kwargs = {"provider": "CPUExecutionProvider", "session_options": session}
    model = _load(params["model"], backend="onnx", model_kwargs={**kwargs, "export": True})
    if not params.get("int8"):
        return model
    from sentence_transformers import export_dynamic_quantized_onnx_model

    target = _copy(params["model"], "st-onnx-int8")
    export_dynamic_quantized_onnx_model(model, params["int8"], str(target))
    file = next(target.rglob("*qint8*.onnx")).relative_to(target / "onnx")
    return _load(target, backend="onnx", model_kwargs={**kwargs, "file_name": str(file)})


def _open_openvino(params: dict[str, Any]) -> Any:
    # On a CPU with bf16 instructions OpenVINO computes in bf16 by default.
    hint = "bf16" if params.get("dtype") == "bfloat16" else "f32"
    config = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": hint}
    kwargs = {"ov_config": config}
    model = _load(params["model"], backend="openvino", model_kwargs={**kwargs, "export": True})
    if not params.get("int8"):
        return model
    from sentence_transformers import export_static_quantized_openvino_model

    target = _copy(params["model"], "st-openvino-int8")
    export_static_quantized_openvino_model(
        model,
        None,
        str(target),
        dataset_name=_calibration_folder(params["calibration"]),
        dataset_config_name="default",
        dataset_split="train",
        column_name="sentence",
    )
    file = next(target.rglob("*qint8*.xml")).relative_to(target / "openvino")
    return _load(target, backend="openvino", model_kwargs={**kwargs, "file_name": str(file)})


def _copy(model: str, name: str) -> Path:
    target = Path.cwd() / name
    shutil.copytree(model, target, dirs_exist_ok=True)
    return target


def _calibration_folder(file: str) -> str:
    """Write one column of sentences as a folder that the datasets library can open."""
    folder = Path.cwd() / "st-calibration"
    folder.mkdir(exist_ok=True)
    lines = Path(file).read_text(encoding="utf-8").strip().split("\n")
    rows = "".join(json.dumps({"sentence": line}) + "\n" for line in lines)
    (folder / "train.jsonl").write_text(rows, encoding="utf-8")
    return str(folder)
