"""From a model's name to a folder on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from simcse_kit.encoder.folder.model_files import files_digest
from simcse_kit.encoder.inputs import path_text
from simcse_kit.errors import ModelError

__all__ = ["EMBEDDED", "resolve_model"]

EMBEDDED: dict[str, Path] = {"mini": Path(__file__).resolve().parents[2] / "assets" / "mini"}

# Of the files in the folder, as `simcse info mini` shows it.
_FINGERPRINTS = {"mini": "831dea3cac60ed94e020c5099a74ed811498baa0738276c59d69becd3da3afd9"}

# Weights other than safetensors are never opened, so they are not fetched either.
_NOT_FETCHED = [
    *(f"*.{suffix}" for suffix in ("bin", "pt", "pth", "pkl", "h5", "msgpack", "ot", "gguf")),
    *("*.onnx", "onnx/*", "openvino/*", "*.tflite", "*.mlmodel"),
]


def resolve_model(
    name: str | os.PathLike[str], *, trust_remote_code: bool = False, revision: str | None = None
) -> Path:
    """Find or fetch the folder of a model.

    Args:
        name: an embedded name (``mini``), a local folder, or a name on the Hugging Face Hub.
            Write ``./mini`` for a local folder of that name.
        trust_remote_code: fetch the repository's Python files as well.
        revision: branch, tag or commit on the Hub.

    Raises:
        ConfigError: the name is no text.
        ModelError: nothing of that name here, and the Hub has none or cannot be reached.
    """
    text = path_text(name, "the model")
    if text in EMBEDDED:
        return _checked(text)
    try:
        path = Path(text).expanduser()
        found, is_folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a null byte
        raise ModelError(f"no such model folder: {text[:100]!r}; {_local_choices()}") from None
    if text and is_folder:
        return path
    if text and found:
        raise ModelError(f"{text} is a file; a model is a folder with config.json and weights")
    if not text or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise ModelError(f"no such model folder: {text!r}; {_local_choices()}")
    return _from_hub(text, trust_remote_code, revision)


def _checked(name: str) -> Path:
    """The folder of an embedded model, once it is known to be what was packaged."""
    folder = EMBEDDED[name]
    found = files_digest(folder).hexdigest()
    if found != _FINGERPRINTS[name]:
        raise ModelError(
            f"the embedded model {name!r} in {folder} is not the one that was packaged "
            f"(fingerprint {found[:12]}, not {_FINGERPRINTS[name][:12]}); install simcse-kit anew"
        )
    return folder


def _local_choices() -> str:
    return f"give a folder with config.json, or the embedded model: {', '.join(EMBEDDED)}"


def _from_hub(name: str, trust_remote_code: bool, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    ignored = _NOT_FETCHED if trust_remote_code else [*_NOT_FETCHED, "*.py"]
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=ignored))
    except HFValidationError:
        raise ModelError(f"{name!r} is no model name; {_local_choices()}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        # Both a name that does not exist and a machine without a network end here.
        reason = type(error).__name__
        raise ModelError(
            f"{name!r} is no local folder and could not be fetched from the Hugging Face Hub "
            f"({reason}: no network, or no such model); {_local_choices()}"
        ) from error
