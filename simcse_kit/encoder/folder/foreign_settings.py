"""The settings that sentence-transformers writes into its files, and what becomes of each here.

Every key is read, known not to change vectors, or allowed with some values only. A key that is not
listed is refused where it is switched on: it may change the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from simcse_kit.errors import ModelError

__all__ = ["MODULES", "SETTINGS", "Only", "Rule", "Use", "check_settings"]


class Use(Enum):
    """What becomes of a setting."""

    READ = "read"
    SWITCH = "read, true or false"
    HARMLESS = "does not change vectors"


class Only:
    """A setting that is allowed with these values alone, which change nothing."""

    def __init__(self, *values: Any) -> None:
        self.values = values


@dataclass(frozen=True)
class Inside:
    """A setting that holds settings."""

    rules: Mapping[str, Rule]


Rule: TypeAlias = Use | Only | Inside

_OFF = (None, False, "", 0)
_READ, _SWITCH, _HARMLESS = Use.READ, Use.SWITCH, Use.HARMLESS

# Arguments of `from_pretrained` that say how a model is brought into memory. Weights are taken in
# float32 whatever they say.
_MODEL_ARGUMENTS: dict[str, Rule] = dict.fromkeys(
    "add_pooling_layer attn_implementation device_map dtype low_cpu_mem_usage torch_dtype "
    "trust_remote_code use_safetensors".split(),
    _HARMLESS,
)
_TOKENIZER_ARGUMENTS: dict[str, Rule] = {
    "model_max_length": _READ,
    "padding_side": _HARMLESS,  # no padding reaches a pooling
    "truncation_side": Only("right"),
    **dict.fromkeys(("clean_up_tokenization_spaces", "trust_remote_code", "use_fast"), _HARMLESS),
}
_CONFIG_ARGUMENTS: dict[str, Rule] = dict.fromkeys(
    ("output_hidden_states", "trust_remote_code", "use_cache"), _HARMLESS
)
_NAMES: dict[str, Rule] = {
    "module_input_name": Only(None, "sentence_embedding"),
    "module_output_name": Only(None, "sentence_embedding"),
}

SETTINGS: dict[str, dict[str, Rule]] = {
    "modules.json": {
        "idx": _HARMLESS,
        "name": _HARMLESS,
        "path": _READ,
        "type": _READ,
        "kwargs": _HARMLESS,  # names of arguments that a call may pass to the module
    },
    "config_sentence_transformers.json": {
        "__version__": _HARMLESS,
        "default_prompt_name": _READ,
        "model_type": Only(None, "SentenceTransformer"),
        "prompts": _READ,
        "requirements": _HARMLESS,  # versions of sentence-transformers
        "similarity_fn_name": _READ,
        "template": _READ,  # written by this kit
        "truncate_dim": _READ,
    },
    "Transformer": {
        "backend": Only(None, "torch"),
        "config_args": Inside(_CONFIG_ARGUMENTS),
        "config_kwargs": Inside(_CONFIG_ARGUMENTS),
        "do_lower_case": _SWITCH,
        "document_length": _HARMLESS,  # of the tasks of multi-vector models, as the next
        "max_seq_length": _READ,
        "modality_config": Inside(
            {
                "text": Inside(
                    {
                        "method": Only("forward"),
                        "method_output_name": Only("last_hidden_state"),
                    }
                ),
                **dict.fromkeys(("audio", "image", "message", "video"), _HARMLESS),
            }
        ),
        "model_args": Inside(_MODEL_ARGUMENTS),
        "model_kwargs": Inside(_MODEL_ARGUMENTS),
        "module_output_name": Only(None, "token_embeddings"),
        "processing_kwargs": Only(None),
        "processor_kwargs": Inside(_TOKENIZER_ARGUMENTS),
        "query_expansion": Only(None),
        "query_length": _HARMLESS,
        "tokenizer_args": Inside(_TOKENIZER_ARGUMENTS),
        "tokenizer_name_or_path": Only(None),
        "transformer_task": Only(None, "feature-extraction"),
        "unpad_inputs": _HARMLESS,
    },
    "WeightedLayerPooling": {
        "embedding_dimension": _HARMLESS,
        "layer_start": _READ,
        "num_hidden_layers": _HARMLESS,
        "word_embedding_dimension": _HARMLESS,
    },
    "Pooling": {
        "embedding_dimension": _HARMLESS,
        "include_prompt": _SWITCH,
        "pooling_mode": _READ,
        "word_embedding_dimension": _HARMLESS,
        **dict.fromkeys(
            (
                f"pooling_mode_{mode}"
                for mode in (
                    *("cls_token", "mean_tokens", "max_tokens", "lasttoken"),
                    *("mean_sqrt_len_tokens", "weightedmean_tokens"),
                )
            ),
            _SWITCH,
        ),
    },
    "Dense": {
        "activation_function": _READ,
        "bias": _SWITCH,
        "in_features": _HARMLESS,  # the weights say it
        "out_features": _HARMLESS,
        "use_residual": Only(None, False),
        **_NAMES,
    },
    "Normalize": dict(_NAMES),
    "Dropout": {"dropout": _HARMLESS},
}
"""What becomes of each key, by the name of the file, or of the module whose file it is."""

MODULES = tuple(key for key in SETTINGS if not key.endswith(".json"))
"""The modules that are supported; Dropout acts in training only."""


def check_settings(path: Path, content: Mapping[str, Any], kind: str) -> None:
    """Refuse a file with a setting that would change the vectors and is not supported.

    Args:
        path: the file.
        content: what it holds.
        kind: key of :data:`SETTINGS`.

    Raises:
        ModelError: there is one; the message names it.
    """
    _check(path, content, SETTINGS[kind], "")


def _check(path: Path, content: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> None:
    for key, value in content.items():
        rule = rules.get(key)
        name = f"{where}{key}"
        if rule is Use.SWITCH and value not in (*_OFF, True):
            raise ModelError(f"{path}: {name} is {value!r:.60}; give true or false")
        if isinstance(rule, Use) or value in _OFF or (rule is None and value in ([], {})):
            continue
        if isinstance(rule, Inside):
            if not isinstance(value, Mapping):
                raise ModelError(f"{path}: {name} is {value!r:.60}, not a JSON object")
            _check(path, value, rule.rules, f"{name}.")
        elif rule is None:
            raise ModelError(
                f"{path}: the setting {name} = {value!r:.60} is not known to this version, and may "
                "change the vectors; remove it if it does not"
            )
        elif value not in rule.values and value != {}:
            allowed = ", ".join(repr(one) for one in rule.values if one is not None) or "none"
            raise ModelError(f"{path}: {name} {value!r:.60} is not supported; supported: {allowed}")
