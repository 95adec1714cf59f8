"""LoRA adapters for training (arXiv 2106.09685), made by peft."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import save_file

from simcse_kit.encoder.folder.adapters import BASE_FILE, weights_digest
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError, MissingExtraError

__all__ = ["LoraOptions", "add_lora", "has_lora", "write_adapter"]

# Names of the weights in files of peft, whose models contain the transformer under this name.
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraOptions:
    """Size and place of a LoRA adapter.

    Attributes:
        r: Rank of the change of a weight.
        alpha: Numerator of the scale ``alpha / r`` of the change.
        dropout: Dropout probability of the input of the adapter. Above 0 the layers run in the code
            of transformers, which is slower.
        target_modules: Names of the adapted linear layers, or ``"all-linear"``; None for the choice
            of peft, which for BERT is query and value.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: str | Sequence[str] | None = None


def add_lora(
    encoder: EncoderModel, options: LoraOptions, *, base: str, revision: str | None = None
) -> None:
    """Add a LoRA adapter to the transformer, which does not change the vectors yet.

    The other weights of the transformer are frozen. The head stays trainable.

    Args:
        encoder: Encoder; it is changed.
        options: Size and place of the adapter.
        base: Name or folder of the model, under which the saved adapter finds it.
        revision: Revision of the model on the Hugging Face Hub.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: The model has no layer of these names, or peft does not know its architecture.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("model.lora", "peft")
    import peft

    targets = options.target_modules
    settings = peft.LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets if targets is None or isinstance(targets, str) else list(targets),
        task_type="FEATURE_EXTRACTION",
        base_model_name_or_path=base,
        revision=revision,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.inject_adapter_in_model(settings, encoder.backbone)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model.lora.target_modules = {targets!r} does not fit a "
            f'{encoder.backbone.config.model_type} ({reason}); give "all-linear", or the names of '
            "linear layers"
        ) from error
    if encoder.source is not None:
        encoder.backbone.base_weights_digest = weights_digest(encoder.source)
    # Adapted layers run in other code.
    encoder.known_batching = None


def has_lora(encoder: EncoderModel) -> bool:
    """Whether the transformer has an adapter from :func:`add_lora`."""
    return hasattr(encoder.backbone, "peft_config")


def write_adapter(encoder: EncoderModel, folder: Path) -> None:
    """Write the adapter as peft does, and the checksum of the weights of its model."""
    import peft

    config = encoder.backbone.peft_config["default"]
    config.save_pretrained(str(folder))
    state = peft.get_peft_model_state_dict(encoder.backbone, save_embedding_layers=False)
    weights = {_PREFIX + name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    digest = getattr(encoder.backbone, "base_weights_digest", None)
    if digest is not None:
        text = json.dumps({"weights": digest}, indent=2) + "\n"
        (folder / BASE_FILE).write_text(text, encoding="utf-8")
