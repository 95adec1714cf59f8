"""Settings in the files of sentence-transformers, and which of them are supported.

Every key is read, known not to change vectors, or allowed with some values only. An unlisted key is
refused unless its value is off, because it may change the vectors.
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
    """Treatment of a setting."""

    READ = "read"
    SWITCH = "read, true or false"
    HARMLESS = "does not change vectors"


class Only:
    """A setting that is allowed only with values that change nothing."""

    def __init__(self, *values: Any) -> None:
        self.values = values


@dataclass(frozen=True)
class Inside:
    """A setting that holds other settings."""

    rules: Mapping[str, Rule]


Rule: TypeAlias = Use | Only | Inside
_Rules: TypeAlias = dict[str, Rule]

_OFF = (None, False, "", 0)


def _rules(*, read: str = "", switch: str = "", harmless: str = "", **others: Rule) -> _Rules:
    """Make the rules of one file from names separated by spaces."""
    named = ((Use.READ, read), (Use.SWITCH, switch), (Use.HARMLESS, harmless))
    return {name: use for use, names in named for name in names.split()} | others


# Arguments of `from_pretrained` about loading into memory. Weights are always loaded in float32.
_MODEL_ARGUMENTS = Inside(
    _rules(
        harmless="add_pooling_layer attn_implementation device_map dtype low_cpu_mem_usage "
        "torch_dtype trust_remote_code use_safetensors"
    )
)
_TOKENIZER_ARGUMENTS = Inside(
    _rules(
        read="model_max_length",
        # No padding reaches a pooling, so its side does not matter.
        harmless="clean_up_tokenization_spaces padding_side trust_remote_code use_fast",
        truncation_side=Only("right"),
    )
)
_CONFIG_ARGUMENTS = Inside(_rules(harmless="output_hidden_states trust_remote_code use_cache"))
_SENTENCE_VECTOR = Only(None, "sentence_embedding")
_TEXT_METHOD = Inside(_rules(method=Only("forward"), method_output_name=Only("last_hidden_state")))

SETTINGS: dict[str, _Rules] = {
    # kwargs: names of arguments that a call may pass to the module
    "modules.json": _rules(read="path type", harmless="idx kwargs name"),
    "config_sentence_transformers.json": _rules(
        # template: written by this package
        read="default_prompt_name prompts similarity_fn_name template truncate_dim",
        harmless="__version__ requirements",
        model_type=Only(None, "SentenceTransformer"),
    ),
    "Transformer": _rules(
        read="max_seq_length",
        switch="do_lower_case",
        # document_length and query_length: for multi-vector models
        harmless="document_length query_length unpad_inputs",
        backend=Only(None, "torch"),
        config_args=_CONFIG_ARGUMENTS,
        config_kwargs=_CONFIG_ARGUMENTS,
        modality_config=Inside(_rules(harmless="audio image message video", text=_TEXT_METHOD)),
        model_args=_MODEL_ARGUMENTS,
        model_kwargs=_MODEL_ARGUMENTS,
        module_output_name=Only(None, "token_embeddings"),
        processing_kwargs=Only(None),
        processor_kwargs=_TOKENIZER_ARGUMENTS,
        query_expansion=Only(None),
        tokenizer_args=_TOKENIZER_ARGUMENTS,
        tokenizer_name_or_path=Only(None),
        transformer_task=Only(None, "feature-extraction"),
    ),
    "WeightedLayerPooling": _rules(
        read="layer_start",
        harmless="embedding_dimension num_hidden_layers word_embedding_dimension",
    ),
    "Pooling": _rules(
        read="pooling_mode",
        switch="include_prompt pooling_mode_cls_token pooling_mode_mean_tokens "
        "pooling_mode_max_tokens pooling_mode_lasttoken pooling_mode_mean_sqrt_len_tokens "
        "pooling_mode_weightedmean_tokens",
        harmless="embedding_dimension word_embedding_dimension",
    ),
    "Dense": _rules(
        read="activation_function",
        switch="bias",
        harmless="in_features out_features",  # the weights have these sizes
        use_residual=Only(None, False),
        module_input_name=_SENTENCE_VECTOR,
        module_output_name=_SENTENCE_VECTOR,
    ),
    "Normalize": _rules(module_input_name=_SENTENCE_VECTOR, module_output_name=_SENTENCE_VECTOR),
    "Dropout": _rules(harmless="dropout"),
    "StaticEmbedding": _rules(),
}
"""Treatment of each key, by file name, or by the module that the file belongs to."""

MODULES = tuple(key for key in SETTINGS if not key.endswith(".json"))
"""Supported modules; Dropout acts in training only."""


def check_settings(path: Path, content: Mapping[str, Any], kind: str) -> None:
    """Refuse a file with an unsupported setting that could change the vectors.

    Args:
        path: File, for the error message.
        content: Parsed content of the file.
        kind: Key of :data:`SETTINGS`.

    Raises:
        ModelError: The file has such a setting.
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
                "change the vectors; remove the setting if it does not"
            )
        elif value not in rule.values and value != {}:
            allowed = ", ".join(repr(one) for one in rule.values if one is not None) or "none"
            raise ModelError(f"{path}: {name} {value!r:.60} is not supported; supported: {allowed}")
