"""How a folder on disk says that sentences become vectors.

One layout serves us and sentence-transformers: ``modules.json`` names a transformer, an optional
``WeightedLayerPooling``, a ``Pooling``, any number of ``Dense`` stages and an optional
``Normalize``. Plain Hugging Face folders and SimCSE checkpoints have no ``modules.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from simcse_kit.encoder.dense import ACTIVATIONS, Dense
from simcse_kit.encoder.pooling import LAYER_POOLINGS
from simcse_kit.encoder.reading import check_finite, inside, read_json, read_object, read_tensor
from simcse_kit.errors import ModelError

__all__ = [
    "ENGINE_FILE",
    "ST_POOLINGS",
    "TEMPLATE_POOLING",
    "Recipe",
    "checkpoint_head",
    "layer_weights",
    "read_recipe",
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
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(entry, dict) for entry in modules):
        raise ModelError(f"{path} is not a list of modules")
    layers: list[float] | None = None
    before = -1
    for entry in modules:
        package, _, kind = str(entry.get("type", "")).rpartition(".")
        part = inside(folder, str(entry.get("path", "")))
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
        weight = read_tensor(folder, f"{name}.weight")
        bias = read_tensor(folder, f"{name}.bias")
        if weight is not None and bias is not None:
            return _dense(folder, weight, bias, "tanh")
    return None


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
    weights = read_tensor(part, "layer_weights")
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
