"""The fingerprint of a model, by which jobs and results identify it."""

from __future__ import annotations

from pathlib import Path

from simcse_kit.encoder.folder.adapters import find_adapter
from simcse_kit.encoder.folder.model_files import files_digest

__all__ = ["fingerprint"]


def fingerprint(folder: Path) -> str:
    """Compute a SHA-256 over the files of a model; equal fingerprints mean equal vectors.

    The fingerprint of an adapter includes the files of its base model.
    """
    digest = files_digest(folder)
    if (folder / "adapter_config.json").exists():
        adapter = find_adapter(folder)
        if adapter is not None:
            digest.update(bytes.fromhex(fingerprint(adapter.base)))
    return digest.hexdigest()
