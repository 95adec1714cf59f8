"""The model card of an encoder on the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from simcse_kit.encoder.folder.resolve import cached_hub_name
from simcse_kit.encoder.folder.save import RUN_FILES, default_card
from simcse_kit.encoder.hub.run_metadata import run_metadata
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ModelError

__all__ = ["hub_card"]

# Metadata of the model that an encoder comes from which is also true of a changed encoder.
_INHERITED = ("license", "license_name", "license_link", "language", "base_model", "datasets")
_LARGEST_README = 1_000_000


def hub_card(
    encoder: EncoderModel,
    name: str,
    *,
    changed: bool,
    license: str | None = None,
    results: Sequence[EvalResult] = (),
) -> str:
    """Write the model card, with the metadata that the Hub reads.

    Text and metadata of the encoder's own README.md are kept if the card is of this package.

    Args:
        encoder: The encoder.
        name: Name of the repository, ``owner/name``.
        changed: Whether the encoder differs from the one in its folder, so that the text and the
            scores there do not describe it.
        license: Identifier of a license on the Hub, instead of the one in README.md.
        results: Scores to add to those that the training run measured.

    Raises:
        ModelError: README.md or the record of the training run cannot be read.
    """
    (facts, text), own = _parts(default_card(encoder)), _own_card(encoder.source)
    metadata: dict[str, Any] = {}
    scores, tags = [*results], _tags(facts)
    if own is not None:
        metadata = {key: own[0].get(key) for key in _INHERITED if own[0].get(key)}
        tags += _tags(own[0])
    if encoder.source is not None and (origin := cached_hub_name(encoder.source)) is not None:
        metadata["base_model"] = origin
    if encoder.source is not None:
        measured = run_metadata(encoder.source)
        measured_scores = measured.pop("eval_results", [])
        metadata = measured | metadata
        if not changed:
            scores = measured_scores + scores
    if own is not None and not changed and "simcse_kit" in own[1]:
        text = own[1]
        scores = [*(own[0].eval_results or []), *scores]
    data = ModelCardData(
        **facts.to_dict()  # type: ignore[no-untyped-call]
        | metadata
        | ({} if license is None else {"license": license})
        | {"tags": list(dict.fromkeys(tags))},
        model_name=name.rpartition("/")[2],
        eval_results=_distinct(scores) or None,
    )
    return "\n".join(["---", data.to_yaml(), "---", *_public_lines(text, name), ""])


def _public_lines(text: str, name: str) -> Iterator[str]:
    """Adapt the text of a card to the repository, which lacks some files and the local folders."""
    text = text.replace("path/to/this/folder", name).replace(f"{RUN_FILES}\n\n", "")
    for line in text.splitlines():
        if line.startswith(("| Start | ", "| Teachers | ")):
            yield re.sub(r"(?<=[ :])/(?:[^/|,]+/)+", "", line)
        # The second encoder of a pair is uploaded to a repository of its own.
        elif not line.startswith("| Encoder "):
            yield line


def _own_card(folder: Path | None) -> tuple[ModelCardData, str] | None:
    """Read the metadata and the text of a folder's model card; None if it has no metadata."""
    path = None if folder is None else folder / "README.md"
    if path is None or not path.is_file():
        return None
    remedy = "correct or delete the file"
    try:
        if path.stat().st_size > _LARGEST_README:
            raise ModelError(f"{path} is larger than {_LARGEST_README:,} bytes; {remedy}")
        content = path.read_text(encoding="utf-8")
        return _parts(content) if content.startswith("---") else None
    # YAML errors are of their own kind, and wrong metadata causes errors of many kinds.
    except Exception as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the metadata of {path} cannot be read: {reason}; {remedy}") from None


def _parts(content: str) -> tuple[ModelCardData, str]:
    card = ModelCard(content)
    return cast(ModelCardData, card.data), card.text


def _tags(data: ModelCardData) -> list[str]:
    return [data.tags] if isinstance(data.tags, str) else list(data.tags or [])


def _distinct(results: Sequence[EvalResult]) -> list[EvalResult]:
    """Keep the last of the results for the same data and metric."""
    last = {(each.dataset_name, each.metric_type): each for each in results}
    return list(last.values())
