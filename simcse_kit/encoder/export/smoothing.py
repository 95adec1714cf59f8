"""SmoothQuant on an ONNX graph (arXiv 2211.10438)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth"]


def smooth(
    source: Path, target: Path, batches: Sequence[dict[str, Any]], *, strength: float = 0.7
) -> None:
    """Move the outliers of activations into the weights, so that both quantise well.

    For every product ``X W`` with constant ``W``: ``(X / s) (s W)`` with
    ``s_j = max|X_j|^strength / max|W_j|^(1 - strength)`` per input channel j (equation 4 of the
    paper). Products that share ``X`` share ``s``. In exact arithmetic the graph's result is the
    same.

    Args:
        source: the float32 graph.
        target: where the smoothed graph goes.
        batches: inputs of the graph, by name.
        strength: the α of the paper: how much of the outliers goes into the weights.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    constants = {each.name: each for each in model.graph.initializer}
    groups: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            groups.setdefault(node.input[0], []).append(node)
    largest = _largest(model, list(groups), batches)
    scaled: set[str] = set()
    for number, (name, nodes) in enumerate(groups.items()):
        weights = {n.input[1]: numpy_helper.to_array(constants[n.input[1]]) for n in nodes}
        # A weight that two products share cannot follow two scales.
        if any(w.ndim != 2 or key in scaled for key, w in weights.items()):
            continue
        scaled |= set(weights)
        of_weights = np.max([np.abs(w).max(axis=1) for w in weights.values()], axis=0)
        scale = np.maximum(largest[name], 1e-5) ** strength
        scale = scale / np.maximum(of_weights, 1e-5) ** (1 - strength)
        scale = np.clip(scale, 1e-5, None).astype(np.float32)
        factor, product = f"smooth_{number}_factor", f"smooth_{number}"
        model.graph.initializer.append(numpy_helper.from_array(1 / scale, factor))
        for key, weight in weights.items():
            constants[key].CopyFrom(numpy_helper.from_array(weight * scale[:, None], key))
        at = min(list(model.graph.node).index(node) for node in nodes)
        model.graph.node.insert(at, helper.make_node("Mul", [name, factor], [product]))
        for node in nodes:
            node.input[0] = product
    onnx.save(model, target)


def _largest(
    model: Any, names: list[str], batches: Sequence[dict[str, Any]]
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each channel (last axis) of the named tensors over all batches."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {each.name for each in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    largest: dict[str, NDArray[np.float32]] = {}
    for batch in batches:
        for name, value in zip(names, session.run(names, batch), strict=True):
            peak = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, peak), peak)
    return largest
