"""Writing an encoder as one graph for another runtime, verified before anything appears."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.encoder.backbone import position_limit, quiet_transformers
from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.export.base import FORMATS, Batch, Format, outputs
from simcse_kit.encoder.export.bundle import (
    SCHEMA,
    Check,
    EngineFacts,
    cosines,
    installed,
    write_facts,
)
from simcse_kit.encoder.export.cpu import int8_instructions
from simcse_kit.encoder.export.padded_module import SentenceGraph, example_batch, stock_attention
from simcse_kit.encoder.export.sample_sentences import SENTENCES
from simcse_kit.encoder.folder.save import staged_folder, write_settings
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.encoder.inputs import path_text, texts_one_by_one
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Exported", "export_encoder"]

logger = logging.getLogger(__name__)

# Largest difference that a float32 graph may show, relative to the largest component or 1.
TOLERANCE = 1e-4
CALIBRATION = 300
HELD_OUT = 300
# Fewer sentences do not show the ranges of the activations.
LEAST = 30


@dataclass(frozen=True)
class Exported:
    """What an export made, and how true it is.

    Attributes:
        folder: where it is.
        format: ``onnx`` or ``openvino``.
        precision: ``fp32`` or ``int8``.
        bytes: size of the graph's files.
        sentences: how many the float32 graph was verified on.
        max_difference: its largest difference from torch, relative to the largest component or 1.
        fp32_score: the score given by the caller's function for torch, if there was one.
        score: the same for the exported graph.
        calibrated_on: sentences that the int8 ranges were taken from.
        held_out: sentences, not among those, that ``cosine_mean`` and ``cosine_min`` are over.
        cosine_mean: mean cosine of the int8 and the torch vector of a sentence.
        cosine_min: the smallest.
    """

    folder: str
    format: str
    precision: str
    bytes: int
    sentences: int
    max_difference: float
    fp32_score: float | None = None
    score: float | None = None
    calibrated_on: int | None = None
    held_out: int | None = None
    cosine_mean: float | None = None
    cosine_min: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values; what was not measured is None."""
        return asdict(self)


def export_encoder(
    encoder: SentenceEncoder,
    folder: str | os.PathLike[str],
    *,
    format: str,
    int8: bool = False,
    calibration: Iterable[str] | None = None,
    score: Callable[[SentenceEncoder], float] | None = None,
    overwrite: bool = False,
    source: str | None = None,
) -> Exported:
    """Export backbone, pooling, head and normalisation as one graph, tokens to sentence vector.

    The float32 graph is compared with torch on real sentences of many lengths; only if they agree
    does the folder appear. It holds tokenizer, configuration, recipe, the graph and
    ``engine.json``, and :meth:`SentenceEncoder.load` opens it.

    Args:
        encoder: what to export; unchanged afterwards.
        folder: where to.
        format: ``"onnx"`` or ``"openvino"``.
        int8: quantise the products of matrices.
        calibration: text like that which will be encoded, needed for int8; read once. Part of a
            random sample of it calibrates, the rest is held out to measure. It also stands in for
            the built-in sentences of the verification.
        score: gives the score of an encoder; called with this one and the exported one.
        overwrite: replace what is in the folder.
        source: name of the model for ``engine.json``; by default the encoder's folder.

    Raises:
        ConfigError: unknown format, int8 without calibration text, or a folder that is in use.
        DataError: too little calibration text.
        MissingExtraError: the packages of the format are not installed.
        ModelError: this architecture cannot be exported, or its graph differs from torch.
    """
    target = Path(path_text(folder, "folder"))
    kind: Format = FORMATS.resolve(format)
    _check_target(target, encoder, overwrite)
    if int8 and calibration is None:
        raise ConfigError(
            "int8 needs calibration text: give a file of sentences like those to be encoded, one "
            "a line"
        )
    if encoder.engine is not None:
        raise ModelError(f"{encoder.source} is exported already; export the model it was made from")
    encoder.require_padding(f"export to {format}")
    try:
        kind.require()
    except ImportError as error:
        raise MissingExtraError(f"export to {format}", kind.extra) from error
    sample = _sample(calibration) if calibration is not None else []
    if int8 and len(sample) < LEAST:
        raise DataError(
            f"{len(sample)} distinct calibration sentences; at least {LEAST} are needed, "
            f"{CALIBRATION} to {CALIBRATION + HELD_OUT} are better"
        )
    with tempfile.TemporaryDirectory(prefix="simcse-export-") as scratch:
        return _export(encoder, target, kind, format, Path(scratch), sample, int8, score, source)


def _export(
    encoder: SentenceEncoder,
    target: Path,
    kind: Format,
    format: str,
    scratch: Path,
    sample: list[str],
    int8: bool,
    score: Callable[[SentenceEncoder], float] | None,
    source: str | None,
) -> Exported:
    from simcse_kit.encoder.encoder import SentenceEncoder

    name = source or str(encoder.source or "unknown")
    verified = sample[:HELD_OUT] or list(SENTENCES)
    logger.info("exporting %s to %s", name, format)
    with staged_folder(target) as staging:
        write_settings(encoder, staging, _card(encoder, format))
        plain = scratch if int8 else staging
        _write_graph(encoder, kind, format, plain)
        if int8:
            write_settings(encoder, plain, "")
        _write_facts(encoder, kind, format, "fp32", plain, name)
        opened = SentenceEncoder.load(plain, max_length=encoder.max_length)
        difference = _difference(encoder, opened, verified)
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the {format} graph of {name} differs from torch by {difference:.2g}, and at most "
                f"{TOLERANCE:g} is allowed; nothing was written; export to another format"
            )
        found: dict[str, Any] = {}
        if int8:
            # The last quarter at least is held out.
            chosen = sample[: min(CALIBRATION, len(sample) * 3 // 4)]
            rest = sample[len(chosen) :]
            logger.info("calibrating int8 on %d sentences", len(chosen))
            with _unsupported(f"{name} cannot be quantised for {format}"):
                kind.quantize(plain, _batches(encoder, chosen), staging)
            _write_facts(encoder, kind, format, "int8", staging, name)
            opened = SentenceEncoder.load(staging, max_length=encoder.max_length)
            alike = cosines(_vectors(encoder, rest), _vectors(opened, rest))
            found = {
                "calibrated_on": len(chosen),
                "held_out": len(rest),
                "cosine_mean": float(alike.mean()),
                "cosine_min": float(alike.min()),
            }
        if score is not None:
            found |= {"fp32_score": score(encoder), "score": score(opened)}
        size = sum((staging / file).stat().st_size for file in kind.files)
    return Exported(
        folder=str(target),
        format=format,
        precision="int8" if int8 else "fp32",
        bytes=size,
        sentences=len(verified),
        max_difference=difference,
        **found,
    )


def _check_target(target: Path, encoder: SentenceEncoder, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; give the name of a folder")
    if encoder.source is not None and target.resolve() == encoder.source.resolve():
        raise ConfigError(f"{target} is the model itself; give another folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ConfigError(f"{target} is not empty; give another folder, or allow overwriting it")


def _sample(texts: Iterable[str]) -> list[str]:
    """A random sample of distinct sentences in random order, the same for the same text."""
    wanted, rng = CALIBRATION + HELD_OUT, random.Random(0)
    kept: list[str] = []
    for number, text in enumerate(texts_one_by_one(texts)):
        if number < wanted:
            kept.append(text)
        elif (place := rng.randrange(number + 1)) < wanted:
            kept[place] = text
    kept = [text for text in dict.fromkeys(kept) if text.strip()]
    rng.shuffle(kept)
    return kept


def _batches(encoder: SentenceEncoder, texts: Sequence[str]) -> list[Batch]:
    """Each sentence alone, so that no padding tells of ranges."""
    batches = []
    for row in encoder.tokenize(texts)[0]:
        ids, mask = pad_batch([row], encoder.tokenizer.pad_token_id)
        batches.append((ids.numpy(), mask.numpy()))
    return batches


def _write_graph(encoder: SentenceEncoder, kind: Format, format: str, folder: Path) -> None:
    graph, example = SentenceGraph(encoder).eval(), example_batch(encoder)
    with (
        _unsupported(f"{type(encoder.backbone).__name__} cannot be exported to {format}"),
        torch.no_grad(),
        quiet_transformers(),
        warnings.catch_warnings(),
        stock_attention(encoder),
    ):
        # Tracing warns of each branch; what it took for constant by mistake shows afterwards.
        warnings.simplefilter("ignore")
        kind.write(graph, example, outputs(encoder.normalize), folder)
        kind.open(folder, threads=1).run(*(each.numpy() for each in example))


@contextmanager
def _unsupported(what: str) -> Iterator[None]:
    """The tools raise whatever their parts raise on an operator that they do not know."""
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(f"{what}: {reason:.300}; try another format") from error


def _write_facts(
    encoder: SentenceEncoder, kind: Format, format: str, precision: Any, folder: Path, name: str
) -> None:
    row = encoder.tokenize([SENTENCES[2]])[0][0]
    check = Check(input_ids=row, vector=[])
    vector = kind.open(folder, threads=1).run(*check.batch())[0]
    check.vector = [float(f"{value:.6g}") for value in np.asarray(vector)]
    write_facts(
        folder,
        EngineFacts(
            schema_version=SCHEMA,
            format=format,
            precision=precision,
            dim=encoder.embedding_dim,
            positions=position_limit(encoder.backbone),
            vocabulary=encoder.backbone.get_input_embeddings().num_embeddings,
            files={file: (folder / file).stat().st_size for file in kind.files},
            instructions=int8_instructions(),
            versions=installed(kind),
            source=name,
            check=check,
        ),
    )


def _difference(encoder: SentenceEncoder, opened: SentenceEncoder, texts: list[str]) -> float:
    expected, got = _vectors(encoder, texts), _vectors(opened, texts)
    return float(np.abs(expected - got).max() / max(1.0, np.abs(expected).max()))


def _vectors(encoder: SentenceEncoder, texts: list[str]) -> NDArray[np.float32]:
    """Not normalised, and without a word about sentences that are cut."""
    vectors: NDArray[np.float32] = vectors_of_rows(encoder, encoder.tokenize(texts)[0]).numpy()
    return vectors


def _card(encoder: SentenceEncoder, format: str) -> str:
    form = ""
    if encoder.template is not None:
        form = f"\nThe ids are those of the sentence in the template `{encoder.template.text}`.\n"
    return f"""# Exported sentence encoder

{encoder.embedding_dim}-dimensional sentence vectors, pooling `{encoder.pooling}`, at most
{encoder.max_length} tokens: tokens to sentence vector as one {format} graph, made with simcse_kit.

```python
from simcse_kit import SentenceEncoder
SentenceEncoder.load("path/to/this/folder").encode(["A sentence.", "Another one."])
```

Inputs `input_ids` and `attention_mask`, both (n, L) int64, padded on the right; the output
`sentence_embedding` is (n, {encoder.embedding_dim}) float32.
{form}"""
