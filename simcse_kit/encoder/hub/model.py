"""Encoder models that describe themselves and can be uploaded to the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simcse_kit.encoder.folder.resolve import cached_hub_name
from simcse_kit.encoder.inputs import path_text
from simcse_kit.encoder.model import EncoderModel

__all__ = ["HubModel"]


class HubModel(EncoderModel):
    """An encoder model with a one-line description and with :meth:`push_to_hub`."""

    def __repr__(self) -> str:
        """Name the model, its pooling, dimensions, maximum length and device in one line."""
        facts = {
            "pooling": self.pooling,
            "dimensions": self.embedding_dim,
            "max_length": self.max_length,
            "device": str(self.device),
        }
        parts = [f"{name}={value!r}" for name, value in facts.items()]
        if self.source is not None:
            parts.insert(0, repr(cached_hub_name(self.source) or self.source.name))
        return f"{type(self).__name__}({', '.join(parts)})"

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = True,
        token: str | None = None,
        exist_ok: bool = False,
        license: str | None = None,
        report: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        dry_run: str | os.PathLike[str] | None = None,
    ) -> str:
        """Upload the encoder with a model card to the Hugging Face Hub, in one commit.

        The metadata of the card name base model and data if they are on the Hub, the license if it
        is known, and the scores that the training run measured. Records of the run, such as
        ``run.toml``, are not uploaded, because they contain local paths.

        Args:
            name: Name of the repository, ``owner/name``.
            private: Whether a new repository is private. An existing one stays as it is.
            token: Token with write access; by default that of ``hf auth login`` or ``HF_TOKEN``.
            exist_ok: Whether a commit may be added to an existing repository.
            license: Identifier of the license, such as ``"apache-2.0"``; by default the one in
                README.md of the folder that the encoder was loaded from.
            report: Scores for the card: the JSON file of ``simcse eval``, or ``Report.to_json()``.
            dry_run: Empty or new folder to write the files to, instead of uploading them.

        Returns:
            Address of the repository; the path of the folder for a dry run.

        Raises:
            ConfigError: The name, the token, the report or the folder cannot be used.
            ModelError: The Hub cannot be reached or refuses the upload, the repository exists, or
                the encoder is exported and cannot be saved.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> from simcse_kit import SentenceEncoder
            >>> encoder = SentenceEncoder.load("mini")
            >>> with TemporaryDirectory() as folder:
            ...     _ = encoder.push_to_hub("owner/name", license="mit", dry_run=folder)
            ...     print(*sorted(path.name for path in Path(folder).glob("*.json"))[:2])
            ...     "license: mit" in Path(folder, "README.md").read_text()
            config.json config_sentence_transformers.json
            True
        """
        # Imported here, because the client takes time to import and few programs upload.
        from simcse_kit.encoder.hub.push import check_repository, upload, write_upload
        from simcse_kit.encoder.hub.run_metadata import report_results

        check_repository(name, token)
        results = None if report is None else report_results(report)
        if dry_run is not None:
            folder = Path(path_text(dry_run, "dry_run"))
            write_upload(self, name, folder, license=license, results=results)
            return str(folder)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "model")
            write_upload(self, name, folder, license=license, results=results)
            return upload(folder, name, private=private, token=token, exist_ok=exist_ok)
