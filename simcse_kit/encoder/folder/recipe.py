"""The recipe of a model folder: transformer, pooling, head and text settings.

The layout is that of sentence-transformers: ``modules.json`` names a transformer, an optional
``WeightedLayerPooling``, a ``Pooling``, any number of ``Dense`` stages and an optional
``Normalize``. Plain Hugging Face folders and SimCSE checkpoints have no ``modules.json``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from simcse_kit.encoder.dense import ACTIVATIONS, Dense
from simcse_kit.encoder.folder.foreign_settings import MODULES, check_settings
from simcse_kit.encoder.folder.safe_io import (
    check_finite,
    inside,
    read_json,
    read_object,
    read_tensor,
)
from simcse_kit.encoder.inputs import whole_number
from simcse_kit.encoder.pooling import LAYER_POOLINGS, layer_weights
from simcse_kit.errors import ModelError

__all__ = [
    "ADAPTER_FILE",
    "ENGINE_FILE",
    "MODEL2VEC",
    "ST_POOLINGS",
    "ST_SWITCHES",
    "TEMPLATE_POOLING",
    "Recipe",
    "checkpoint_head",
    "read_recipe",
]

logger = logging.getLogger(__name__)

# A folder with this file holds an exported graph in place of weights.
ENGINE_FILE = "engine.json"
# The model type in the configuration of a model2vec folder.
MODEL2VEC = "model2vec"
# A folder with this file holds changes to another model's weights.
ADAPTER_FILE = "adapter_config.json"
# This package's pooling for each token pooling of sentence-transformers, in the order in which its
# old settings, one for each pooling, concatenate the vectors.
ST_POOLINGS = {
    "cls": "cls_before_pooler",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
# Only in this package: sentence-transformers cannot append text to a sentence, and refuses it.
TEMPLATE_POOLING = "mask"
# The old settings, in the order in which they are written.
ST_SWITCHES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# Modules in their allowed order.
_ORDER = tuple(kind for kind in MODULES if kind not in ("Dropout", "StaticEmbedding"))
# The MLP head in checkpoints of princeton-nlp/SimCSE: under `mlp` after training, moved into the
# pooler by their conversion script:
# https://github.com/princeton-nlp/SimCSE/blob/3ebee8f93d6eddb4b689ec22ebccecc9d8f832af/simcse_to_huggingface.py
# ALBERT's pooler has no `dense` inside.
_MLP_KEYS = ("mlp.dense",)
_POOLER_KEYS = (
    *("pooler.dense", "bert.pooler.dense", "roberta.pooler.dense", "mpnet.pooler.dense"),
    *("pooler", "albert.pooler"),
)


@dataclass
class Recipe:
    """The settings of a model folder besides the transformer.

    Attributes:
        transformer: Folder of the transformer, or of the static embeddings.
        static: Whether the folder has static embeddings in place of a transformer.
        pooling: Pooling, see :func:`~simcse_kit.encoder.pooling.check_pooling`; None if the folder
            has none.
        stages: Dense stages after pooling.
        normalize: Whether vectors are scaled to unit length.
        max_length: Maximum number of tokens per sentence; None if the folder has none.
        lowercase: Whether sentences are lower-cased before tokenization.
        prompt: Text put in front of every sentence, unless a call gives another one.
        prompts: Further prompts by their names.
        include_prompt: Whether the tokens of a prompt are pooled.
        template: Template around every sentence, for pooling ``mask``.
        truncate_dim: Number of dimensions that are kept of the vectors; None for all.
    """

    transformer: Path
    static: bool = False
    pooling: str | None = None
    stages: list[Dense] = field(default_factory=list)
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    prompts: dict[str, str] = field(default_factory=dict)
    include_prompt: bool = True
    template: str = ""
    truncate_dim: int | None = None


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe of a folder in the sentence-transformers layout, or a plain one.

    Raises:
        ModelError: A file is missing or damaged, a module points outside the folder, or a module
            or setting is not supported.
    """
    recipe = Recipe(transformer=folder)
    path = folder / "modules.json"
    if not path.exists():
        if not (folder / ADAPTER_FILE).exists():  # the base model has the configuration
            config = read_object(folder / "config.json")
            if config.get("model_type") == MODEL2VEC:
                recipe.static, recipe.pooling = True, "mean"
                recipe.normalize = bool(config.get("normalize"))
        return recipe
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(entry, dict) for entry in modules):
        raise ModelError(f"{path} is not a list of modules")
    layers: list[float] | None = None
    before = -1
    for entry in modules:
        package, _, kind = str(entry.get("type", "")).rpartition(".")
        part = inside(folder, str(entry.get("path", "")))
        if package.partition(".")[0] != "sentence_transformers" or kind not in MODULES:
            raise ModelError(
                f"{path}: module {entry.get('type')!r} is not supported; supported: "
                f"{', '.join(MODULES)} of sentence_transformers"
            )
        check_settings(path, entry, "modules.json")
        if kind == "Dropout":  # inactive outside of training
            continue
        if kind == "StaticEmbedding":
            if before >= 0:
                raise ModelError(f"{path}: {kind} must come first")
            recipe.transformer, recipe.static, recipe.pooling = part, True, "mean"
            _read_transformer(part, recipe)  # the length, if this package has written the folder
            before = _ORDER.index("Pooling")
            continue
        place = _ORDER.index(kind)
        if before < 0 < place:
            raise ModelError(
                f"{path}: {kind} cannot come first; a Transformer or StaticEmbedding must"
            )
        if place < before or (place == before and kind != "Dense"):
            raise ModelError(f"{path}: {kind} cannot follow {_ORDER[before]} here")
        before = place
        if kind == "Transformer":
            recipe.transformer = part
            _read_transformer(part, recipe)
        elif kind == "WeightedLayerPooling":
            layers = _read_layers(part)
        elif kind == "Pooling":
            recipe.pooling, recipe.include_prompt = _read_pooling(part, layers)
        elif kind == "Dense":
            recipe.stages.append(_read_dense(part))
        else:
            recipe.normalize = True
            if (part / "config.json").exists():
                _read_settings(part / "config.json", kind)
    if recipe.pooling is None:
        raise ModelError(f"{path} names no Pooling module")
    if recipe.pooling == "cls_before_pooler" and recipe.stages and recipe.stages[0].is_mlp_head:
        recipe.pooling = "cls"
    _read_model_settings(folder, recipe)
    return recipe


def checkpoint_head(folder: Path, pooling: str) -> Dense | None:
    """Read the square tanh head stored with the weights of a transformer; None without one.

    If a checkpoint has both, ``pooler`` takes the model's own pooler and ``cls`` the MLP of SimCSE.
    """
    names = _POOLER_KEYS + _MLP_KEYS if pooling == "pooler" else _MLP_KEYS + _POOLER_KEYS
    for name in names:
        weight = read_tensor(folder, f"{name}.weight")
        bias = read_tensor(folder, f"{name}.bias")
        if weight is not None and bias is not None:
            return _dense(folder, weight, bias, "tanh")
    return None


def _read_transformer(part: Path, recipe: Recipe) -> None:
    # sentence_bert_config.json; in old folders also sentence_roberta_config.json and others
    for path in sorted(part.glob("sentence_*_config.json"))[:1]:
        config = _read_settings(path, "Transformer")
        recipe.max_length = config.get("max_seq_length")
        for key in ("tokenizer_args", "processor_kwargs"):
            length = (config.get(key) or {}).get("model_max_length")
            recipe.max_length = recipe.max_length if length is None else length
        recipe.lowercase = bool(config.get("do_lower_case"))


def _read_layers(part: Path) -> list[float]:
    path = part / "config.json"
    start = _read_settings(path, "WeightedLayerPooling").get("layer_start", 4)
    weights = read_tensor(part, "layer_weights")
    if weights is None:
        raise ModelError(f"{part} has no layer_weights in model.safetensors")
    if not isinstance(start, int) or start < 0 or weights.ndim != 1:
        raise ModelError(f"{path}: layer_start {start!r} does not fit the weights")
    return [0.0] * start + [float(weight) for weight in weights]


def _read_pooling(part: Path, layers: list[float] | None) -> tuple[str, bool]:
    """Read the pooling, and whether it includes the tokens of a prompt."""
    path = part / "config.json"
    config = _read_settings(path, "Pooling")
    include_prompt = config.get("include_prompt") is not False
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for name in ST_POOLINGS if config.get(ST_SWITCHES[name])]
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode == TEMPLATE_POOLING and layers is None:
        return TEMPLATE_POOLING, include_prompt
    modes = mode if isinstance(mode, list) else [mode]
    if not modes or not all(isinstance(part, str) and part in ST_POOLINGS for part in modes):
        raise ModelError(
            f"{path}: pooling {mode!r} is not supported; supported: {', '.join(ST_POOLINGS)}"
        )
    if layers is None:
        return "+".join(ST_POOLINGS[part] for part in modes), include_prompt
    total = sum(layers) or 1.0
    for name in LAYER_POOLINGS:
        wanted = layer_weights(name, len(layers) - 1) if len(layers) > 1 else []
        if mode == "mean" and [w / total for w in layers] == [w / 2 for w in wanted]:
            return name, include_prompt
    raise ModelError(
        f"{part.parent}: layer weights {layers} with {mode} pooling are not supported; "
        f"supported: {', '.join(LAYER_POOLINGS)}"
    )


def _read_dense(part: Path) -> Dense:
    path = part / "config.json"
    config = _read_settings(path, "Dense")
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = named.rpartition(".")[2].lower()
    if activation not in ACTIVATIONS or not named.startswith("torch."):
        raise ModelError(
            f"{path}: activation {named!r} is not supported; "
            f"supported: {', '.join(sorted(ACTIVATIONS))}"
        )
    weight = read_tensor(part, "linear.weight")
    bias = read_tensor(part, "linear.bias")
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


def _read_settings(path: Path, kind: str) -> dict[str, Any]:
    config = read_object(path)
    check_settings(path, config, kind)
    return config


def _prompts(path: Path, prompts: Any) -> dict[str, str]:
    if not isinstance(prompts, dict):
        raise ModelError(f"{path}: prompts are {prompts!r:.60}; give texts by their names")
    for name, text in prompts.items():
        if not isinstance(text, str | None):
            raise ModelError(f"{path}: the prompt {name!r} is {text!r:.60}; give a text, or null")
    return {name: text or "" for name, text in prompts.items()}


def _read_model_settings(folder: Path, recipe: Recipe) -> None:
    path = folder / "config_sentence_transformers.json"
    if path.exists():
        config = _read_settings(path, path.name)
        name = config.get("default_prompt_name")
        recipe.prompts = _prompts(path, config.get("prompts") or {})
        if name and (not isinstance(name, str) or name not in recipe.prompts):
            raise ModelError(f"{path}: default_prompt_name {name!r} is not among its prompts")
        if name:
            recipe.prompt = recipe.prompts[name]
        if recipe.pooling == TEMPLATE_POOLING:
            recipe.template = str(config.get("template") or "")
        recipe.truncate_dim = config.get("truncate_dim")
        if recipe.truncate_dim is not None and (whole_number(recipe.truncate_dim) or 0) < 1:
            raise ModelError(
                f"{path}: truncate_dim is {recipe.truncate_dim!r:.60}; give a number of dimensions "
                "of at least 1, or null"
            )
        alike = config.get("similarity_fn_name")
        if alike not in (None, "cosine"):
            logger.warning("%s compares vectors by %r; this kit uses the cosine", path, alike)
    if recipe.pooling == TEMPLATE_POOLING and not recipe.template:
        raise ModelError(f"{path} lacks the template that pooling {TEMPLATE_POOLING!r} needs")
