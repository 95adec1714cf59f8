"""Resolution of model names to local folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from simcse_kit.encoder.folder.model_files import files_digest
from simcse_kit.encoder.inputs import path_text
from simcse_kit.errors import ConfigError, ModelError

__all__ = [
    "DEFAULT_ENCODER",
    "EMBEDDED",
    "HubKeywords",
    "HubOptions",
    "cached_hub_name",
    "hub_name",
    "is_local",
    "resolve_model",
]

# SHA-256 of the files of each embedded model, which `simcse info` shows as the fingerprint.
_FINGERPRINTS = {
    "small": "84c067198f8d495a536c74c3178322f6071be99742f653ab6e920480105eea32",
    "mini": "831dea3cac60ed94e020c5099a74ed811498baa0738276c59d69becd3da3afd9",
}
_ASSETS = Path(__file__).resolve().parents[2] / "assets"
EMBEDDED: dict[str, Path] = {name: _ASSETS / name for name in _FINGERPRINTS}
DEFAULT_ENCODER = "small"
"""The embedded model that gives good vectors; ``mini`` is a raw model to train from."""

# Only safetensors weights are opened, so no others are fetched.
_NOT_FETCHED = [
    *(f"*.{suffix}" for suffix in ("bin", "pt", "pth", "pkl", "h5", "msgpack", "ot", "gguf")),
    *("*.onnx", "onnx/*", "openvino/*", "*.tflite", "*.mlmodel"),
]


class HubKeywords(TypedDict, total=False):
    """The attributes of :class:`HubOptions`, as keywords."""

    revision: str | None
    token: str | None
    local_files_only: bool


@dataclass(frozen=True)
class HubOptions:
    """How models are downloaded from the Hugging Face Hub.

    Attributes:
        revision: Branch, tag or commit; None for the main branch.
        token: Access token; None for ``$HF_TOKEN`` or that of ``hf auth login``.
        local_files_only: Whether only models of the local cache are opened.
    """

    revision: str | None = None
    token: str | None = None
    local_files_only: bool = False


_BY_DEFAULT = HubOptions()


def resolve_model(
    name: str | os.PathLike[str],
    *,
    trust_remote_code: bool = False,
    hub: HubOptions = _BY_DEFAULT,
) -> Path:
    """Find or download the folder of a model.

    Args:
        name: Name of an embedded model (``small`` or ``mini``), local folder, or name on the
            Hugging Face Hub, with ``@REVISION`` if it is not the main branch. Write ``./small`` for
            a local folder of that name.
        trust_remote_code: Whether the repository's Python files are downloaded as well.
        hub: Options of a download.

    Raises:
        ConfigError: The name is not text, or names another revision than ``revision``.
        ModelError: No local folder has the name, and the Hub has no such model or cannot be
            reached.

    Examples:
        >>> resolve_model("small").name
        'small'
    """
    text = path_text(name, "the model")
    if text in EMBEDDED:
        return _checked(text)
    try:
        path = Path(text).expanduser()
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # name too long, unknown user, null byte
        raise ModelError(f"no such model folder: {text[:100]!r}; {_local_choices()}") from None
    if text and is_folder:
        return path
    if text and found:
        raise ModelError(f"{text} is a file; a model is a folder with config.json and weights")
    repository, revision = hub_name(text)
    local = not text or text.startswith((".", "/", "~")) or "\\" in text
    if local or repository.count("/") > 1:
        raise ModelError(f"no such model folder: {text!r}; {_local_choices()}")
    if revision is not None and hub.revision not in (None, revision):
        raise ConfigError(
            f"{text!r} and revision={hub.revision!r} name two revisions; give one of them"
        )
    hub = replace(hub, revision=revision or hub.revision)
    return _from_hub(repository, trust_remote_code, hub)


def is_local(name: str | os.PathLike[str]) -> bool:
    """Whether a model is embedded or a folder, so that it is not looked up on the Hub."""
    return name in EMBEDDED or Path(name).expanduser().is_dir()


def hub_name(name: str) -> tuple[str, str | None]:
    """Split a name on the Hub into repository and revision.

    Examples:
        >>> hub_name("owner/name@v1"), hub_name("owner/name")
        (('owner/name', 'v1'), ('owner/name', None))
    """
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _checked(name: str) -> Path:
    """Return the folder of an embedded model after verifying its files."""
    folder = EMBEDDED[name]
    found = files_digest(folder).hexdigest()
    if found != _FINGERPRINTS[name]:
        raise ModelError(
            f"the embedded model {name!r} in {folder} has changed since it was packaged "
            f"(fingerprint {found[:12]}, not {_FINGERPRINTS[name][:12]}); reinstall simcse-kit"
        )
    return folder


def cached_hub_name(folder: Path) -> str | None:
    """Return the name on the Hub of a folder in the Hub's cache; None for other folders.

    Examples:
        >>> cached_hub_name(Path("hub/models--owner--name/snapshots/0123abc"))
        'owner/name'
    """
    parts = folder.parts[-3:]
    if len(parts) < 3 or parts[1] != "snapshots" or not parts[0].startswith("models--"):
        return None
    return parts[0].removeprefix("models--").replace("--", "/")


def _local_choices() -> str:
    return f"give a folder with config.json, or an embedded model: {', '.join(EMBEDDED)}"


def _from_hub(name: str, trust_remote_code: bool, hub: HubOptions) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    ignored = _NOT_FETCHED if trust_remote_code else [*_NOT_FETCHED, "*.py"]
    offline = hub.local_files_only or constants.HF_HUB_OFFLINE
    try:
        return Path(
            snapshot_download(
                name,
                revision=hub.revision,
                token=hub.token,
                local_files_only=offline,
                ignore_patterns=ignored,
            )
        )
    except HFValidationError:
        raise ModelError(f"{name!r} is not a model name; {_local_choices()}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        # Raised for a name that does not exist and on a machine without a network.
        reason = f"{type(error).__name__}: no network, no such model or revision, or no access"
        if offline:
            reason = "not in its cache, and local_files_only or HF_HUB_OFFLINE allows no download"
        shown = repr(name if hub.revision is None else f"{name}@{hub.revision}")
        raise ModelError(
            f"{shown} is not a local folder and could not be fetched from the Hugging Face Hub "
            f"({reason}); {_local_choices()}"
        ) from error
