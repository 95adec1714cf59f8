"""The encoder of an index, and the encoding of new segments."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from simcse_kit.bulk.job import BulkJob
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.shard_log import JOB
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.folder.resolve import EMBEDDED
from simcse_kit.encoder.prompts import chosen_prompt, role_prompt
from simcse_kit.errors import ConfigError
from simcse_kit.search.documents import Identified
from simcse_kit.search.manifest import EncoderRecord, Manifest, Segment
from simcse_kit.search.segments import VECTORS, new_segment
from simcse_kit.search.settings import PRECISIONS, IndexSettings
from simcse_kit.search.texts import TEXTS, Texts
from simcse_kit.utils.prompt_choice import Role

__all__ = ["check_encoder", "encode_segment", "encoder_record", "new_manifest"]


def encoder_record(encoder: SentenceEncoder, settings: IndexSettings) -> EncoderRecord:
    """Describe an encoder, so that only the same one opens the index.

    Raises:
        ConfigError: The encoder was not loaded from a folder, or has no prompt of a given name.
    """
    if encoder.source is None:
        raise ConfigError(
            "the encoder has no folder that identifies the model; save the encoder and load it"
        )
    source = encoder.source.resolve()
    embedded = [name for name, folder in EMBEDDED.items() if folder.resolve() == source]

    def prompt(role: Role) -> str:
        given = settings.prompts.options(role)
        if not settings.prompts:
            return role_prompt(encoder, role)
        return chosen_prompt(encoder, given.get("prompt"), given.get("prompt_name"))

    return EncoderRecord(
        model=settings.model or (embedded[0] if embedded else str(source)),
        fingerprint=fingerprint(encoder.source),
        pooling=encoder.pooling,
        max_length=encoder.max_length,
        query_prompt=prompt("query"),
        document_prompt=prompt("document"),
    )


def new_manifest(
    encoder: SentenceEncoder, settings: IndexSettings, before: Manifest | None
) -> Manifest:
    """Describe a new index without documents.

    Args:
        encoder: The encoder.
        settings: Precision, engine and prompts.
        before: State of the index that will be replaced; None if there is none.
    """
    return Manifest(
        generation=before.generation + 1 if before else 1,
        encoder=encoder_record(encoder, settings),
        dim=encoder.embedding_dim,
        precision=settings.precision,
        engine=settings.engine_record(),
    )


def check_encoder(encoder: SentenceEncoder, record: EncoderRecord, folder: Path) -> None:
    """Refuse an encoder whose vectors differ from those of an index.

    Raises:
        ConfigError: The model, its pooling or its maximum length is another one.
    """
    found = encoder_record(encoder, IndexSettings())
    for name in ("fingerprint", "pooling", "max_length"):
        given, wanted = getattr(found, name), getattr(record, name)
        if given != wanted:
            what = "" if name == "fingerprint" else f" with {name} {wanted}, not {given}"
            raise ConfigError(
                f"{folder} was built with another encoder, {record.model}{what}; load the encoder "
                f"that it was built with, not {encoder.source}, or build the index again with "
                "--overwrite"
            )


def encode_segment(
    folder: Path,
    manifest: Manifest,
    encoder: SentenceEncoder,
    documents: Iterable[Identified],
    *,
    progress: bool,
) -> Manifest:
    """Write documents and their vectors as a new segment, or continue to do so.

    Args:
        folder: Folder of the index.
        manifest: The new state without the segment.
        encoder: The encoder.
        documents: The documents.
        progress: Whether a progress bar is shown on a terminal.

    Returns:
        The new state, which is not yet the current one.

    Raises:
        ConfigError: The files cannot be written.
        ModelError: A vector is not finite.
    """
    record = manifest.encoder
    key = [manifest.generation, record.fingerprint, record.document_prompt, manifest.precision]
    next_id = manifest.next_id

    def counted() -> Iterable[Identified]:
        nonlocal next_id
        for document in documents:
            # Numbers continue after the largest one, so that none is used twice.
            if document.id.isdecimal() and document.id.isascii() and len(document.id) < 19:
                next_id = max(next_id, int(document.id) + 1)
            yield document

    place, rows = new_segment(folder, counted(), key)
    if not rows:
        shutil.rmtree(place)
        return manifest
    vectors = place / VECTORS
    if not (vectors / JOB).exists():
        shutil.rmtree(vectors, ignore_errors=True)
    output = OutputSpec.of(f"{vectors}/").in_precision(PRECISIONS[manifest.precision])
    options = EncodeOptions(normalize=True, prompt=record.document_prompt, progress=progress)
    texts = Texts([place / TEXTS])
    BulkJob(encoder, output, options).run(
        (document.text for document in texts.documents()), total=rows
    )
    names = sorted(path.relative_to(folder).as_posix() for path in vectors.glob("part-*.npy"))
    segment = Segment(place.name, rows, tuple(names))
    return replace(
        manifest,
        segments=(*manifest.segments, segment),
        count=manifest.count + rows,
        next_id=next_id,
    )
