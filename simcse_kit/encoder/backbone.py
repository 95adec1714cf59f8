"""Safe loading of transformers and tokenizers; no other module calls AutoModel."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from simcse_kit.encoder.folder.safe_io import check_finite, read_object, shard_map
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.utils.process import collection_paused

__all__ = [
    "dropout_probabilities",
    "load_backbone",
    "load_masked_lm",
    "load_tokenizer",
    "position_limit",
    "quiet_transformers",
    "set_dropout",
]

logger = logging.getLogger(__name__)

# Only the encoder of these model types is loaded.
_WITH_DECODER = frozenset({"t5", "mt5", "umt5"})


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the loading report and progress bar of transformers inside the block."""
    from transformers.utils import logging as hf_logging

    verbosity = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _require_safetensors(folder: Path) -> None:
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} holds a PEFT adapter; merge it into its model and save that")
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() and not whole.is_file():
        raise ModelError(f"{whole} is not a regular file; copy the model's weights there")
    if whole.exists():
        return
    if index.exists():
        # TRAP: transformers opens a shard of any other name with torch.load.
        for shard in shard_map(index).values():
            if not str(shard).endswith(".safetensors") or Path(str(shard)).name != shard:
                raise ModelError(f"{index}: {shard!r} is not a safetensors file of this folder")
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise ModelError(
            f"{folder} holds pickled weights ({pickled[0]}), which can run code when opened and "
            "are never loaded; if you trust the file, convert it in its folder: python -c "
            '"import torch, safetensors.torch as s; '
            f"w = torch.load('{pickled[0]}', weights_only=True); "
            "s.save_file({k: v.clone() for k, v in w.items()}, 'model.safetensors', "
            "{'format': 'pt'})\""
        )
    raise ModelError(f"{folder} has no model.safetensors")


def _refuse_remote_code(folder: Path) -> None:
    """Refuse model folders that need their own Python code.

    TRAP: transformers ignores `auto_map` if it has its own class for the model type.
    """
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        code = read_object(path).get("auto_map") if path.exists() else None
        wanted = {"AutoConfig", "AutoModel", "AutoTokenizer"}
        if code and (not isinstance(code, dict) or wanted & set(code)):
            raise ModelError(
                f"{path} asks for the model's own Python code; pass trust_remote_code=True if you "
                "have read it and trust it"
            )


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:400]


def _load(auto_class: Any, folder: Path, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    _require_safetensors(folder)
    if not trust_remote_code:
        _refuse_remote_code(folder)
    try:
        with quiet_transformers():
            model, info = auto_class.from_pretrained(
                folder,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
                dtype=torch.float32,
            )
    # transformers raises the errors of its parts on a damaged folder; all of them are bad input.
    except Exception as error:
        raise ModelError(f"{folder} cannot be opened as a model: {_one_line(error)}") from error
    return model, info


@collection_paused()
def load_backbone(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load a transformer in float32, in evaluation mode, without its pooler.

    Raises:
        ModelError: The weights are missing, pickled, damaged or incomplete, or the model does not
            encode text.
    """
    from transformers import AutoModel, AutoModelForTextEncoding

    kind = read_object(folder / "config.json").get("model_type")
    auto = AutoModelForTextEncoding if kind in _WITH_DECODER else AutoModel
    model, info = _load(auto, folder, trust_remote_code)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of its architecture, {missing[0]} first; they "
            "would be random. Is the checkpoint complete?"
        )
    # TRAP: the encoder of UMT5, loaded alone, still claims to have a decoder.
    whole = model.config.is_encoder_decoder and kind not in _WITH_DECODER
    if whole or not isinstance(_words(model), nn.Embedding):
        raise ModelError(
            f"{folder} is a {type(model).__name__}; a text encoder or decoder is needed"
        )
    if not isinstance(getattr(model.config, "hidden_size", None), int):
        raise ModelError(
            f"{folder} is a {type(model).__name__}, whose configuration names no single width of "
            "token states (hidden_size); a text encoder or decoder is needed"
        )
    check_finite(model.named_parameters(), folder)
    # TRAP: a configuration may ask for tuples.
    model.config.return_dict = True
    _remove_pooler(model)
    return model.eval()


def _words(model: Any) -> nn.Module | None:
    """Return the embeddings of the vocabulary, if the model has any."""
    try:
        words: nn.Module | None = model.get_input_embeddings()
    # transformers raises the second for models without a vocabulary.
    except (AttributeError, NotImplementedError):
        return None
    return words


class _NoPooler(nn.Module):
    """A placeholder for a pooler that the model always calls."""

    def forward(self, *_: Any, **__: Any) -> None:
        """Return None."""


def _remove_pooler(model: Any) -> None:
    """Remove the pooler: our head replaces it, and a missing pooler was initialised randomly."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        optional = "add_pooling_layer" in inspect.signature(type(model).__init__).parameters
        model.pooler = None if optional else _NoPooler()


def load_masked_lm(folder: Path, backbone: Any) -> nn.Module:
    """Load the masked-LM head of a checkpoint on top of a loaded backbone.

    Raises:
        ModelError: The checkpoint has no masked-LM head.
    """
    from transformers import AutoModelForMaskedLM

    # Code of a repository that runs in the backbone was trusted when the backbone was loaded.
    trusted = type(backbone).__module__.startswith("transformers_modules.")
    model, info = _load(AutoModelForMaskedLM, folder, trusted)
    if info["missing_keys"]:
        raise ModelError(
            f"{folder} has no masked-LM head ({sorted(info['missing_keys'])[0]} is missing); "
            "set method.mlm_weight = 0, or start from a checkpoint saved with its MLM head"
        )
    setattr(model, model.base_model_prefix, backbone)
    model.tie_weights()
    assert isinstance(model, nn.Module)
    return model


@collection_paused()
def load_tokenizer(folder: Path, *, vocabulary: int, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer and compare it with the model's vocabulary.

    Args:
        folder: Folder of the model.
        vocabulary: Number of token embeddings of the model.
        trust_remote_code: Whether Python code of the folder may run.

    Raises:
        ModelError: The tokenizer is missing, empty or damaged, has no padding token, or has more
            tokens than the model has embeddings.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
    except Exception as error:
        raise ModelError(f"{folder}: the tokenizer cannot be opened: {_one_line(error)}") from error
    # TRAP: without its files transformers makes an empty tokenizer without words.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ModelError(f"{folder} has no tokenizer; copy tokenizer.json of the model there")
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model only {vocabulary} "
            "embeddings; copy the tokenizer that belongs to these weights there"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{folder}: the tokenizer has neither a padding nor an end token")
    return tokenizer


def position_limit(backbone: Any) -> int | None:
    """Return the number of tokens that a model has uniform positions for; None if unlimited."""
    limit = getattr(backbone.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    # TRAP: RoBERTa models count positions from padding_idx + 1, so 514 rows allow 512 tokens.
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        return int(limit - padding - 1)
    return min([limit, *_longrope_limits(backbone.config)])


def _longrope_limits(config: Any) -> list[int]:
    """Return the lengths above which rotary positions of the kind "longrope" change.

    TRAP: they change for all rows of a batch at once, in a buffer that all threads share, so a
    short text would get another vector in a batch with a long one.
    """
    rope = getattr(config, "rope_parameters", None)
    kinds = [rope, *rope.values()] if isinstance(rope, dict) else []
    return [
        int(kind["original_max_position_embeddings"])
        for kind in kinds
        if isinstance(kind, dict) and kind.get("rope_type") == "longrope"
    ]


def _dropout_places(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Find every (name, module, attribute) that holds a dropout probability.

    Some models keep the probability of attention in an attribute instead of an nn.Dropout. The
    dropout of a LoRA adapter is left out: it belongs to the adapter.
    """
    for name, module in backbone.named_modules():
        if "lora_dropout" in name.split("."):
            continue
        if isinstance(module, nn.Dropout):
            yield name, module, "p"
        for attribute, value in vars(module).items():
            if "dropout" in attribute and type(value) in (float, int):
                yield f"{name}.{attribute}".lstrip("."), module, attribute


def dropout_probabilities(backbone: nn.Module) -> dict[str, float]:
    """Return every dropout probability of the model by its name."""
    return {name: float(getattr(m, a)) for name, m, a in _dropout_places(backbone)}


def set_dropout(backbone: Any, probability: float) -> None:
    """Set every dropout probability of the model, in its modules and in its configuration.

    Raises:
        ConfigError: The probability is not in [0, 1).
    """
    if not isinstance(probability, int | float | np.floating) or not 0 <= probability < 1:
        raise ConfigError(f"dropout is {probability!r}; allowed: 0 <= p < 1")
    # Some models use nn.Identity for a dropout of 0.
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if "drop" in name and isinstance(child, nn.Identity):
                setattr(parent, name, nn.Dropout(0.0))
    for _, module, attribute in list(_dropout_places(backbone)):
        setattr(module, attribute, float(probability))
    for key, value in list(vars(backbone.config).items()):
        if "dropout" in key and type(value) in (float, int) and "layer" not in key:
            setattr(backbone.config, key, float(probability))
