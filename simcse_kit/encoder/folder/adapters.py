"""Adapters of peft: folders with changes to another model's weights, merged on loading."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from simcse_kit.encoder.folder.recipe import ADAPTER_FILE, read_recipe
from simcse_kit.encoder.folder.resolve import HubOptions, resolve_model
from simcse_kit.encoder.folder.safe_io import check_finite, read_object
from simcse_kit.errors import MissingExtraError, ModelError, SimcseError
from simcse_kit.utils.files import sha256_of

__all__ = [
    "BASE_FILE",
    "Adapter",
    "find_adapter",
    "merge_adapter",
    "tokenizer_folder",
    "transformer_folder",
    "weights_digest",
]

# Written by this package: the checksum of the weights that the adapter was trained on.
BASE_FILE = "adapter_base.json"

_WEIGHTS = "adapter_model.safetensors"
# Kinds whose changes can be added to the weights of the model.
_KINDS = ("LORA", "ADALORA", "BOFT", "IA3", "LOHA", "LOKR", "OFT", "VERA")
# Prefix of the names of all weights in the file.
_PREFIX = "base_model.model."
# Parts of a model that no pooling of token states uses.
_UNUSED = ("pooler.", "classifier.", "score.", "lm_head.", "cls.")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk.

    Attributes:
        folder: Folder of the adapter.
        base: Folder of the model that the adapter changes.
    """

    folder: Path
    base: Path


def find_adapter(
    folder: Path, *, trust_remote_code: bool = False, hub: HubOptions | None = None
) -> Adapter | None:
    """Find the adapter in a folder, and find or download its base model.

    Args:
        folder: Folder.
        trust_remote_code: Whether the base model's Python files are downloaded as well.
        hub: Options of the download; the adapter chooses the revision.

    Returns:
        The adapter; None if the folder does not hold one.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: The kind of adapter cannot be merged, its weights are missing or pickled, or
            its base model cannot be found.
    """
    path = folder / ADAPTER_FILE
    if not path.exists():
        return None
    config = read_object(path)
    kind, name = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind not in _KINDS:
        raise ModelError(
            f"{path}: peft_type is {kind!r:.60}; supported: {', '.join(_KINDS)}. Merge the adapter "
            "into its model with the program that made it, and open that"
        )
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{path}: base_model_name_or_path is {name!r:.60}; write the name or the folder of the "
            "model that the adapter was trained on"
        )
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(
            f"{folder} has no {_WEIGHTS}; adapters with pickled weights are not opened; save the "
            "adapter again with safetensors"
        )
    if find_spec("peft") is None:
        raise MissingExtraError(f"{folder}, a PEFT adapter,", "peft")
    revision = config.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"{path}: revision is {revision!r:.60}, not text")
    try:
        own = replace(hub or HubOptions(), revision=revision)
        base = resolve_model(name, trust_remote_code=trust_remote_code, hub=own)
    except SimcseError as error:
        raise ModelError(
            f"{folder} is an adapter of {name!r:.200}, which cannot be opened: {error}; or write "
            f"its folder into base_model_name_or_path of {ADAPTER_FILE}"
        ) from error
    if (base / ADAPTER_FILE).exists():
        raise ModelError(
            f"{folder} is an adapter of {base}, which is an adapter too; merge that one first"
        )
    return Adapter(folder, base)


def merge_adapter(adapter: Adapter, backbone: Any, *, pooler: bool) -> Any:
    """Add the changes of an adapter to the weights of its base model.

    Args:
        adapter: Adapter.
        backbone: Transformer of the base model; changed in place.
        pooler: Whether the vectors go through the pooler of the base model.

    Returns:
        The backbone; its weights can be trained.

    Raises:
        ModelError: The adapter is damaged, does not belong to this model, or changes a pooler that
            is used.
    """
    import peft

    _check_base(adapter)
    weights = _weights(adapter, backbone, pooler=pooler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Settings of a later version may change the result.
            warnings.filterwarnings("error", message="Unexpected keyword arguments")
            config = peft.PeftConfig.from_pretrained(str(adapter.folder))
            model = peft.PeftModel(backbone, config)
            expected = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
            found = set(weights)
            wrong = sorted(expected ^ found)
            if wrong:
                where = "is missing" if wrong[0] in expected else "has no place in the model"
                raise ValueError(f"{len(wrong)} weights do not fit; the first, {wrong[0]}, {where}")
            peft.set_peft_model_state_dict(model, weights)
            merged = model.merge_and_unload(safe_merge=True)
    # A damaged folder makes peft raise errors of many types.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{adapter.folder} cannot be merged into {adapter.base}: {reason}"
        ) from error
    check_finite(merged.named_parameters(), adapter.folder)
    return merged.requires_grad_(True).eval()


def tokenizer_folder(adapter: Adapter, weights: Path) -> Path:
    """Return the adapter's folder if it has its own tokenizer, else the folder of the weights."""
    names = ("tokenizer.json", "tokenizer_config.json")
    return adapter.folder if any((adapter.folder / n).exists() for n in names) else weights


def transformer_folder(folder: Path) -> Path:
    """Return the folder with the weights of a model's transformer, heads included."""
    transformer = read_recipe(folder).transformer
    adapter = find_adapter(transformer)
    return transformer if adapter is None else read_recipe(adapter.base).transformer


def weights_digest(folder: Path) -> str:
    """Compute a SHA-256 over the weights of a model's transformer."""
    digest = hashlib.sha256()
    for path in sorted(read_recipe(folder).transformer.glob("model*.safetensors")):
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def _check_base(adapter: Adapter) -> None:
    """Refuse other weights of the same shapes, which would silently give other vectors."""
    path = adapter.folder / BASE_FILE
    if path.exists() and read_object(path).get("weights") != weights_digest(adapter.base):
        raise ModelError(
            f"{adapter.folder} is an adapter of another model: the weights in {adapter.base} are "
            "not those that it was trained on; write the folder of the right model into "
            f"base_model_name_or_path of {ADAPTER_FILE}"
        )


def _weights(adapter: Adapter, backbone: Any, *, pooler: bool) -> dict[str, Tensor]:
    """Read the weights of an adapter, under the names that they have in the bare transformer."""
    path = adapter.folder / _WEIGHTS
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    # In adapters of models with a head, the transformer is a submodule.
    inner = f"{_PREFIX}{getattr(backbone, 'base_model_prefix', '')}."
    if any(name.startswith(inner) for name in weights):
        weights = {name.replace(inner, _PREFIX, 1): value for name, value in weights.items()}
    if pooler and any(name.startswith(f"{_PREFIX}pooler.") for name in weights):
        raise ModelError(
            f"{adapter.folder} changes the pooler of its model, which is not supported; choose "
            "another pooling, such as 'cls_before_pooler' or 'mean'"
        )
    unused = tuple(_PREFIX + part for part in _UNUSED)
    return {name: value for name, value in weights.items() if not name.startswith(unused)}
