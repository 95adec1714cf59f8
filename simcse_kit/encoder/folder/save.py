"""Saving of an encoder, in a layout that sentence-transformers reads too."""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from simcse_kit.encoder.dense import Dense, Truncation
from simcse_kit.encoder.folder.recipe import (
    ST_POOLINGS,
    ST_SWITCHES,
    TEMPLATE_POOLING,
)
from simcse_kit.encoder.folder.static_files import write_static
from simcse_kit.encoder.lora import has_lora, write_adapter
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.pooling import HEAD_POOLINGS, LAYER_POOLINGS, layer_weights
from simcse_kit.encoder.static import StaticTokenization
from simcse_kit.encoder.tokenization import SENTENCE
from simcse_kit.errors import ModelError
from simcse_kit.utils.files import sync_folder
from simcse_kit.utils.locks import output_locked
from simcse_kit.utils.printable import one_line

__all__ = ["RUN_FILES", "default_card", "save_encoder", "staged_folder", "write_settings"]

# Module names of sentence-transformers 2 to 6; older versions cannot read the new names.
_ST = "sentence_transformers.models."
_MODEL_FILES = (
    *("model*.safetensors", "model.safetensors.index.json", "sentence_*_config.json"),
    *("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("engine.json", "model.onnx", "model.xml", "model.bin"),
    *("adapter_model*.safetensors", "adapter_base.json"),
)
# Each makes a folder a model: they are removed first and written last.
_MARKS = ("modules.json", "config.json", "adapter_config.json")


def save_encoder(encoder: EncoderModel, folder: Path, card: str | None) -> None:
    """Write an encoder to ``folder``, with ``card`` as its README.md; of a LoRA run, the adapter.

    Raises:
        ConfigError: Another process is writing to the folder.
        ModelError: The folder cannot be written.
    """
    with staged_folder(folder) as staging:
        if isinstance(encoder.tokenization, StaticTokenization):
            write_static(encoder.backbone, encoder.tokenization, staging, encoder.normalize)
        elif has_lora(encoder):
            write_adapter(encoder, staging)
        else:
            _write_weights(encoder, staging)
        write_settings(encoder, staging, default_card(encoder) if card is None else card)


# ---------------------------------------------------------------- atomic replacement of a folder


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder that replaces ``folder`` when the block ends without an error.

    Raises:
        ConfigError: Another process is writing a model to ``folder``.
        ModelError: The folder cannot be written; every OSError of the block counts as that.
    """
    with ExitStack() as stack:
        with _write_errors(folder, OSError, ValueError):  # ValueError: null byte in the name
            busy = f"writes {folder} at this time; wait until it is done, or give another folder"
            stack.enter_context(output_locked(folder, "saving", busy=busy))
        with _write_errors(folder, OSError, SafetensorError):
            # Inside an existing folder: it may be a mounted volume whose parent is not writable.
            home = folder if folder.is_dir() else folder.parent
            # Remove what killed processes left.
            for place in (folder, folder.parent):
                for leftover in place.glob(f".{glob.escape(folder.name)}.saving-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.saving-", dir=home))
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            yield staging
            # mkdtemp and safetensors create files that only the owner can read.
            for path in (staging, *staging.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            sync_folder(staging)
            if folder.exists():
                _replace_files(folder, staging)
            else:
                staging.rename(folder)


@contextmanager
def _write_errors(folder: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Convert errors of these kinds to a ModelError."""
    try:
        yield
    except kinds as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{one_line(str(folder))} cannot be written: {reason}") from error


def _replace_files(folder: Path, staging: Path) -> None:
    """Move the staged files into an existing folder and remove the files of the old model."""
    for name in reversed(_MARKS):
        (folder / name).unlink(missing_ok=True)
    for pattern in _MODEL_FILES:
        for path in folder.glob(pattern):
            path.unlink()
    for item in sorted(staging.iterdir()):
        if item.name not in _MARKS:
            target = folder / item.name
            if target.is_dir():
                shutil.rmtree(target)
            item.replace(target)
    for name in _MARKS:
        if (staging / name).exists():
            (staging / name).replace(folder / name)


# ---------------------------------------------------------------- files of an encoder


def write_settings(encoder: EncoderModel, staging: Path, card: str) -> None:
    """Write everything of a model folder except the weights of the transformer or the table."""
    static = isinstance(encoder.tokenization, StaticTokenization)
    modules: list[tuple[str, str]] = [("", "StaticEmbedding" if static else "Transformer")]
    if not static:
        _write_transformer_settings(encoder, staging)
        _write_pooling(encoder, staging, modules)
    end: Truncation | None = None
    for stage in encoder.head or []:
        if isinstance(stage, Truncation):
            end = stage
        else:
            _write_dense(cast(Dense, stage), _add(staging, modules, "Dense"))
    if encoder.normalize or (end is not None and end.unit):
        _add(staging, modules, "Normalize")
    settings: dict[str, Any] = {
        "max_seq_length": encoder.max_length,
        "do_lower_case": encoder.lowercase,
    }
    if has_lora(encoder) and encoder.pooling in LAYER_POOLINGS:  # as in config.json above
        settings["config_args"] = {"output_hidden_states": True}
    _write_json(staging / "sentence_bert_config.json", settings)
    texts: dict[str, Any] = {"prompts": encoder.prompts, "default_prompt_name": None}
    if encoder.prompt:
        names = (name for name, text in encoder.prompts.items() if text == encoder.prompt)
        name = next(names, "default")
        prompts = encoder.prompts | {name: encoder.prompt}
        texts = {"prompts": prompts, "default_prompt_name": name}
    if end is not None:
        texts["truncate_dim"] = end.out_features
    if encoder.template is not None:
        texts["template"] = encoder.template.text
    _write_json(staging / "config_sentence_transformers.json", texts)
    _write_json(
        staging / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": _ST + kind}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    (staging / "README.md").write_text(card, encoding="utf-8")


def _write_transformer_settings(encoder: EncoderModel, staging: Path) -> None:
    config: dict[str, Any] = encoder.backbone.config.to_dict()
    config["architectures"] = [type(encoder.backbone).__name__]
    # Without this, sentence-transformers' layer pooling silently uses the last layer only.
    config["output_hidden_states"] = encoder.pooling in LAYER_POOLINGS
    if not has_lora(encoder):  # that of the base model applies
        _write_json(staging / "config.json", config)
    if encoder.tokenizer.is_fast:  # otherwise the truncation of the last call would be saved
        encoder.tokenizer.backend_tokenizer.no_truncation()
    encoder.tokenizer.save_pretrained(staging)


def _write_pooling(encoder: EncoderModel, staging: Path, modules: list[tuple[str, str]]) -> None:
    width = {"word_embedding_dimension": int(encoder.backbone.config.hidden_size)}
    if encoder.pooling in LAYER_POOLINGS:
        layers = int(encoder.backbone.config.num_hidden_layers)
        part = _add(staging, modules, "WeightedLayerPooling")
        sizes = {"layer_start": 0, "num_hidden_layers": layers}
        _write_json(part / "config.json", width | sizes)
        weights = torch.tensor(
            layer_weights(encoder.pooling, layers), dtype=torch.float32, device="cpu"
        )
        save_file({"layer_weights": weights}, part / "model.safetensors")
    modes = _st_modes(encoder.pooling)
    flags: dict[str, Any] = {switch: mode in modes for mode, switch in ST_SWITCHES.items()}
    if encoder.pooling == TEMPLATE_POOLING:
        flags = {"pooling_mode": TEMPLATE_POOLING}
    elif modes != [mode for mode in ST_POOLINGS if mode in modes]:
        flags = {"pooling_mode": modes}  # the old settings would change the order
    if not encoder.include_prompt:
        flags["include_prompt"] = False
    _write_json(_add(staging, modules, "Pooling") / "config.json", width | flags)


def _st_modes(pooling: str) -> list[str]:
    """Return the pooling modes of sentence-transformers."""
    if pooling in HEAD_POOLINGS:
        return ["cls"]
    if pooling in LAYER_POOLINGS:
        return ["mean"]
    modes = {ours: theirs for theirs, ours in ST_POOLINGS.items()}
    return [modes[part] for part in pooling.split("+") if part in modes]


def _write_weights(encoder: EncoderModel, staging: Path) -> None:
    weights = _tensors(encoder.backbone)
    head = encoder.head
    stage = cast(Dense, head[0]) if head is not None and len(head) == 1 else None
    # For BERT and similar models, AutoModel's pooler_output is then the sentence vector.
    has_pooler = hasattr(encoder.backbone, "pooler")
    if encoder.pooling in HEAD_POOLINGS and has_pooler and stage is not None and stage.is_mlp_head:
        pooler = "pooler" if encoder.backbone.config.model_type == "albert" else "pooler.dense"
        for name, value in _tensors(stage.linear).items():
            weights[f"{pooler}.{name}"] = value.clone()
    # Two names of one storage cannot be saved, and loading may need both names.
    seen: set[int] = set()
    for key, value in weights.items():
        if value.data_ptr() in seen:
            weights[key] = value.clone()
        seen.add(value.data_ptr())
    save_file(weights, staging / "model.safetensors", metadata={"format": "pt"})


def _write_dense(stage: Dense, part: Path) -> None:
    kind = type(stage.activation)
    where = "linear" if stage.activation_name == "identity" else "activation"
    _write_json(
        part / "config.json",
        {
            "in_features": stage.in_features,
            "out_features": stage.out_features,
            "bias": stage.linear.bias is not None,
            "activation_function": f"torch.nn.modules.{where}.{kind.__name__}",
        },
    )
    tensors = {f"linear.{name}": value for name, value in _tensors(stage.linear).items()}
    save_file(tensors, part / "model.safetensors")


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}


def _add(staging: Path, modules: list[tuple[str, str]], kind: str) -> Path:
    """Create the folder of the next module and append the module to the list."""
    name = f"{len(modules)}_{kind}"
    modules.append((name, kind))
    part = staging / name
    part.mkdir()
    return part


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- model card


def default_card(encoder: EncoderModel) -> str:
    """Write a short model card."""
    if encoder.template is None:
        others, library = _WITH_SENTENCE_TRANSFORMERS, "sentence-transformers"
    else:
        others, library = _with_template(encoder), "simcse_kit"
    return f"""---
library_name: {library}
pipeline_tag: sentence-similarity
tags: [{library}, sentence-similarity, simcse]
---
# Sentence encoder

{encoder.embedding_dim}-dimensional sentence vectors, pooling `{encoder.pooling}`, at most
{encoder.max_length} tokens, made with simcse_kit.

```python
from simcse_kit import SentenceEncoder
SentenceEncoder.load("path/to/this/folder").encode(["A sentence.", "Another one."])
```

{others}"""


RUN_FILES = "The whole configuration is in `run.toml`, the curves are in `training.html`."
"""Line of the card of a training run, which is left out where these files are not."""

_WITH_SENTENCE_TRANSFORMERS = """```python
from sentence_transformers import SentenceTransformer
SentenceTransformer("path/to/this/folder").encode(["A sentence.", "Another one."])
```
"""


def _with_template(encoder: EncoderModel) -> str:
    assert encoder.template is not None
    return f"""Every sentence is put into the template

    {one_line(encoder.template.text)}

with the sentence in the place of `{SENTENCE}`; its vector is the last layer's state at the mask
token. sentence-transformers cannot put text behind a sentence, so it refuses this folder. With
plain transformers, tokenize the filled template and take the state at the mask token.
"""
