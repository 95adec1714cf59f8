"""How a folder on disk says that sentences become vectors.

One layout serves us and sentence-transformers: ``modules.json`` names a transformer, an optional
``WeightedLayerPooling``, a ``Pooling``, any number of ``Dense`` stages and an optional
``Normalize``. Plain Hugging Face folders and SimCSE checkpoints have no ``modules.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from simcse_kit.encoder.dense import ACTIVATIONS, Dense
from simcse_kit.encoder.pooling import LAYER_POOLINGS
from simcse_kit.errors import ModelError

__all__ = [
    "ENGINE_FILE",
    "ST_POOLINGS",
    "TEMPLATE_POOLING",
    "Recipe",
    "check_finite",
    "checkpoint_head",
    "layer_weights",
    "read_object",
    "read_recipe",
    "shard_map",
]

# A folder with this file holds an exported graph in place of weights.
ENGINE_FILE = "engine.json"
# Our pooling for each token pooling of sentence-transformers.
ST_POOLINGS = {"cls": "cls_before_pooler", "mean": "mean", "max": "max", "lasttoken": "last_token"}
# Ours alone: sentence-transformers cannot put text behind a sentence, and refuses the name.
TEMPLATE_POOLING = "mask"
_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
# Modules in the order in which they can follow each other.
_ORDER = ("Transformer", "WeightedLayerPooling", "Pooling", "Dense", "Normalize")
# The MLP head in the checkpoints of princeton-nlp/SimCSE: under `mlp` as trained, moved into the
# model's pooler by their conversion script. ALBERT's pooler has no `dense` inside.
_MLP_KEYS = ("mlp.dense",)
_POOLER_KEYS = (
    *("pooler.dense", "bert.pooler.dense", "roberta.pooler.dense", "mpnet.pooler.dense"),
    *("pooler", "albert.pooler"),
)


@dataclass
class Recipe:
    """What a model folder says besides the transformer itself.

    Attributes:
        transformer: folder of the transformer.
        pooling: our name, or None where the folder does not say.
        stages: Dense stages after pooling.
        normalize: unit-length output.
        max_length: tokens a sentence may have, or None where the folder does not say.
        lowercase: lower-case the text before the tokenizer sees it.
        prompt: text put in front of every sentence.
        template: what every sentence is put into, for pooling ``mask``.
    """

    transformer: Path
    pooling: str | None = None
    stages: list[Dense] = field(default_factory=list)
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    template: str = ""


def _read_json(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise ModelError(f"{path} is no regular file; copy the model's own there")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Parse a JSON file of a model folder.

    Raises:
        ModelError: it is missing, or is not a JSON object.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def layer_weights(pooling: str, layers: int) -> list[float]:
    """Weights of hidden states 0 (embeddings) to ``layers`` that stand for a layer pooling."""
    weights = [0.0] * (layers + 1)
    for index in LAYER_POOLINGS[pooling]:
        weights[index] += 1.0
    return weights


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe of a folder in the sentence-transformers layout, or a plain one.

    Raises:
        ModelError: a file is missing or broken, a module points outside the folder, or a module
            or option is one that this kit does not run.
    """
    recipe = Recipe(transformer=folder)
    path = folder / "modules.json"
    if not path.exists():
        read_object(folder / "config.json")
        return recipe
    modules = _read_json(path)
    if not isinstance(modules, list) or not all(isinstance(entry, dict) for entry in modules):
        raise ModelError(f"{path} is not a list of modules")
    layers: list[float] | None = None
    before = -1
    for entry in modules:
        package, _, kind = str(entry.get("type", "")).rpartition(".")
        part = _inside(folder, str(entry.get("path", "")))
        if package.partition(".")[0] != "sentence_transformers" or kind not in (*_ORDER, "Dropout"):
            raise ModelError(
                f"{path}: module {entry.get('type')!r} is not supported; supported: "
                f"{', '.join(_ORDER)} of sentence_transformers"
            )
        if kind == "Dropout":  # inactive outside of training
            continue
        place = _ORDER.index(kind)
        if place < before or (place == before and kind != "Dense"):
            raise ModelError(f"{path}: {kind} cannot follow {_ORDER[before]} here")
        before = place
        if kind == "Transformer":
            recipe.transformer = part
            _read_transformer(part, recipe)
        elif kind == "WeightedLayerPooling":
            layers = _read_layers(part)
        elif kind == "Pooling":
            recipe.pooling = _read_pooling(part, layers)
        elif kind == "Dense":
            recipe.stages.append(_read_dense(part))
        else:
            recipe.normalize = True
            _check_names(part / "config.json")
    if recipe.pooling is None:
        raise ModelError(f"{path} names no Pooling module")
    if recipe.pooling == "cls_before_pooler" and recipe.stages and recipe.stages[0].is_mlp_head:
        recipe.pooling = "cls"
    _read_prompt(folder, recipe)
    return recipe


def checkpoint_head(folder: Path, pooling: str) -> Dense | None:
    """The square tanh head stored with the transformer's own weights, or None.

    ``pooler`` prefers the model's own pooler, ``cls`` the MLP of SimCSE, where there are both.
    """
    names = _POOLER_KEYS + _MLP_KEYS if pooling == "pooler" else _MLP_KEYS + _POOLER_KEYS
    for name in names:
        weight = _tensor(folder, f"{name}.weight")
        bias = _tensor(folder, f"{name}.bias")
        if weight is not None and bias is not None:
            return _dense(folder, weight, bias, "tanh")
    return None


def _inside(folder: Path, relative: str) -> Path:
    # By name alone: in the Hub's cache the files are links that lead out of their folder.
    name = os.path.normpath(relative or ".")
    if Path(name).is_absolute() or Path(name).parts[:1] == ("..",):
        raise ModelError(f"{folder}: path {relative!r} leads out of the folder")
    return folder / name


def _read_transformer(part: Path, recipe: Recipe) -> None:
    # sentence_bert_config.json, or sentence_roberta_config.json and the like of old folders
    for path in sorted(part.glob("sentence_*_config.json"))[:1]:
        config = read_object(path)
        recipe.max_length = config.get("max_seq_length")
        recipe.lowercase = bool(config.get("do_lower_case"))
        task = config.get("transformer_task", "feature-extraction")
        if task != "feature-extraction":
            raise ModelError(f"{path}: transformer_task {task!r} is not supported")


def _read_layers(part: Path) -> list[float]:
    path = part / "config.json"
    start = read_object(path).get("layer_start", 4)
    weights = _tensor(part, "layer_weights")
    if weights is None:
        raise ModelError(f"{part} holds no layer_weights in model.safetensors")
    if not isinstance(start, int) or start < 0 or weights.ndim != 1:
        raise ModelError(f"{path}: layer_start {start!r} does not fit the weights")
    return [0.0] * start + [float(weight) for weight in weights]


def _read_pooling(part: Path, layers: list[float] | None) -> str:
    path = part / "config.json"
    config = read_object(path)
    mode = config.get("pooling_mode")
    if mode is None:
        chosen = [name for key, name in _LEGACY_MODES.items() if config.get(key)]
        mode = chosen[0] if len(chosen) == 1 else chosen
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode == TEMPLATE_POOLING and layers is None:
        return TEMPLATE_POOLING
    if not isinstance(mode, str) or mode not in ST_POOLINGS:
        raise ModelError(
            f"{path}: pooling {mode!r} is not supported; supported: {', '.join(ST_POOLINGS)}"
        )
    if config.get("include_prompt") is False:
        raise ModelError(f"{path}: include_prompt = false is not supported")
    if layers is None:
        return ST_POOLINGS[mode]
    total = sum(layers) or 1.0
    for name in LAYER_POOLINGS:
        wanted = layer_weights(name, len(layers) - 1) if len(layers) > 1 else []
        if mode == "mean" and [w / total for w in layers] == [w / 2 for w in wanted]:
            return name
    raise ModelError(
        f"{part.parent}: layer weights {layers} with {mode} pooling are not supported; "
        f"supported: {', '.join(LAYER_POOLINGS)}"
    )


def _read_dense(part: Path) -> Dense:
    path = part / "config.json"
    config = read_object(path)
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2].lower()
    if activation not in ACTIVATIONS or not named.startswith("torch."):
        raise ModelError(
            f"{path}: activation {named!r} is not supported; "
            f"supported: {', '.join(sorted(ACTIVATIONS))}"
        )
    _check_names(path)
    if config.get("use_residual"):
        raise ModelError(f"{path}: use_residual is not supported")
    weight = _tensor(part, "linear.weight")
    bias = _tensor(part, "linear.bias")
    if weight is None or (config.get("bias", True) and bias is None):
        raise ModelError(f"{part} lacks the weights of its Dense stage in model.safetensors")
    return _dense(part, weight, bias, activation)


def _dense(where: Path, weight: Tensor, bias: Tensor | None, activation: str) -> Dense:
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ModelError(f"{where}: the weights of a Dense stage have the wrong shape")
    check_finite([("weight", weight), ("bias", bias)], where)
    dense = Dense(weight.shape[1], weight.shape[0], bias is not None, activation)
    dense.linear.weight.data = weight.float()
    if bias is not None:
        dense.linear.bias.data = bias.float()
    return dense


def check_finite(weights: Iterable[tuple[str, Tensor | None]], where: Path) -> None:
    """Refuse weights that are NaN or infinite: vectors would be so, or be wrong without a sign.

    Args:
        weights: by name.
        where: the folder they come from.

    Raises:
        ModelError: one is.
    """
    for name, weight in weights:
        # One sum is quicker than looking at each, and finite only if all of them are.
        if weight is None or bool(weight.sum().isfinite()) or bool(weight.isfinite().all()):
            continue
        raise ModelError(
            f"{where}: {name} holds NaN or infinity, no finite number; the checkpoint is damaged, "
            "or its training had diverged"
        )


def _check_names(path: Path) -> None:
    """Stages must pass on the sentence's vector, not the tokens'."""
    config = read_object(path) if path.exists() else {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise ModelError(f"{path}: {key} {config[key]!r} is not supported")


def _read_prompt(folder: Path, recipe: Recipe) -> None:
    path = folder / "config_sentence_transformers.json"
    if path.exists():
        config = read_object(path)
        name = config.get("default_prompt_name")
        prompts = config.get("prompts") or {}
        if name and (not isinstance(prompts, dict) or not isinstance(prompts.get(name), str)):
            raise ModelError(f"{path}: default_prompt_name {name!r} is not among its prompts")
        if name:
            recipe.prompt = prompts[name]
        if recipe.pooling == TEMPLATE_POOLING:
            recipe.template = str(config.get("template") or "")
    if recipe.pooling == TEMPLATE_POOLING and not recipe.template:
        raise ModelError(f"{path} lacks the template that pooling {TEMPLATE_POOLING!r} needs")


def shard_map(index: Path) -> dict[str, Any]:
    """Which file of the folder holds which weight.

    Raises:
        ModelError: the index cannot be read or has no such map.
    """
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict):
        raise ModelError(f"{index} has no weight_map of names to files")
    return found


def _tensor(folder: Path, key: str) -> Tensor | None:
    """One tensor of a folder's safetensors weights, sharded or not."""
    file = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if not file.exists() and index.exists():
        shard = shard_map(index).get(key)
        if shard is None:
            return None
        file = _inside(folder, str(shard))
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as weights:
            if key not in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                return None
            tensor: Tensor = weights.get_tensor(key)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
