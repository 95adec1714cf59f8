"""The files of a model folder and their checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

from simcse_kit.utils.files import sha256_of

__all__ = ["files_digest", "model_files"]

_KINDS = {".json", ".safetensors", ".txt", ".model", ".onnx", ".xml", ".bin"}


def model_files(folder: Path) -> list[Path]:
    """List the files of an encoder, without the checkpoints and logs of training."""
    found = [*folder.glob("*"), *folder.glob("[0-9]_*/*")]
    kept = (path for path in found if path.is_file() and path.suffix in _KINDS)
    return sorted(path for path in kept if path.name != "result.json")


def files_digest(folder: Path) -> hashlib._Hash:
    """Compute a SHA-256 over the names and contents of the files of an encoder."""
    digest = hashlib.sha256()
    for path in model_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest
