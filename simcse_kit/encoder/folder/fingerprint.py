"""What tells one model from another: its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from simcse_kit.utils.checksums import sha256_of

__all__ = ["fingerprint", "model_files"]

_KINDS = {".json", ".safetensors", ".txt", ".model", ".onnx", ".xml", ".bin"}


def model_files(folder: Path) -> list[Path]:
    """The files that make the encoder; not the checkpoints and logs of a training beside them."""
    found = [*folder.glob("*"), *folder.glob("[0-9]_*/*")]
    kept = (path for path in found if path.is_file() and path.suffix in _KINDS)
    return sorted(path for path in kept if path.name != "result.json")


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and contents: equal fingerprints, equal vectors."""
    digest = hashlib.sha256()
    for path in model_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(sha256_of(path)))
    if base := _base_of(folder):
        digest.update(bytes.fromhex(fingerprint(base)))
    return digest.hexdigest()


def _base_of(folder: Path) -> Path | None:
    """Of an adapter the model that it changes, which is part of what the vectors depend on."""
    if not (folder / "adapter_config.json").exists():
        return None
    from simcse_kit.encoder.folder.adapters import find_adapter

    adapter = find_adapter(folder)
    return None if adapter is None else adapter.base
