"""Export of an encoder as one graph for another runtime, verified before it is written."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.encoder.backbone import position_limit, quiet_transformers
from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.export.base import FORMATS, ExportFormat, PaddedBatch, outputs
from simcse_kit.encoder.export.bundle import (
    SCHEMA,
    Check,
    EngineFacts,
    cosines,
    installed,
    int8_instructions,
    write_facts,
)
from simcse_kit.encoder.export.padded_module import SentenceGraph, example_batch, stock_attention
from simcse_kit.encoder.export.sample_sentences import SENTENCES, random_sample
from simcse_kit.encoder.folder.save import staged_folder, write_settings
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.encoder.inputs import path_text
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Exported", "check_format", "export_encoder"]

logger = logging.getLogger(__name__)

# Largest allowed difference of a float32 graph, relative to the largest component or 1.
TOLERANCE = 1e-4
CALIBRATION = 300
HELD_OUT = 300
# Fewer sentences are not enough to see the ranges of the activations.
LEAST = 30


@dataclass(frozen=True)
class Exported:
    """The result of an export, with its differences from torch.

    Attributes:
        folder: folder of the exported encoder.
        format: ``onnx`` or ``openvino``.
        precision: ``fp32`` or ``int8``.
        bytes: size of the graph's files.
        sentences: number of sentences that the float32 graph was verified on.
        max_difference: largest difference of the float32 graph from torch, relative to the largest
            component or 1.
        fp32_score: score of the torch encoder; None if it was not measured.
        score: score of the exported encoder; None if it was not measured.
        calibrated_on: number of sentences that the int8 ranges come from.
        held_out: number of other sentences that ``cosine_mean`` and ``cosine_min`` are over.
        cosine_mean: mean cosine between the int8 and the torch vector of a sentence.
        cosine_min: smallest of these cosines.
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


def check_format(format: str, *, int8: bool = False) -> ExportFormat:
    """Return the export format with a name.

    Args:
        format: ``"onnx"`` or ``"openvino"``.
        int8: whether the int8 form is wanted.

    Raises:
        ConfigError: the name is unknown, or the format has no int8 form.
    """
    kind: ExportFormat = FORMATS.resolve(format)
    if int8 and not kind.has_int8:
        raise ConfigError(
            f"{format} exports have no int8 form; export to openvino for int8, or encode with "
            "precision int8, which needs no export"
        )
    return kind


def export_encoder(
    encoder: SentenceEncoder,
    folder: str | os.PathLike[str],
    *,
    format: str,
    int8: bool = False,
    calibration: Iterable[str] | None = None,
    overwrite: bool = False,
    source: str | None = None,
) -> Exported:
    """Export backbone, pooling, head and normalization as one graph from tokens to vectors.

    The float32 graph is compared with torch on sentences of many lengths, and the folder is
    written only if they agree. It holds tokenizer, configuration, recipe, the graph and
    ``engine.json``; :meth:`SentenceEncoder.load` opens it.

    Args:
        encoder: the encoder to export; it is not changed. Of an encoder on a GPU, a copy on the
            CPU is exported.
        folder: output folder.
        format: ``"onnx"`` or ``"openvino"``.
        int8: quantize the matrix products (OpenVINO only).
        calibration: text like the text to be encoded, required for int8; read once. Part of a
            random sample of it calibrates the ranges, the rest is held out to measure the error.
            It also replaces the built-in sentences for the verification.
        overwrite: replace the files of a folder that is not empty.
        source: name of the model for ``engine.json``; the encoder's folder by default.

    Raises:
        ConfigError: unknown format, int8 without calibration text or for ONNX, or a folder that
            is in use.
        DataError: too little calibration text.
        MissingExtraError: the packages of the format are not installed.
        ModelError: this architecture cannot be exported, or its graph differs from torch.
    """
    target = Path(path_text(folder, "folder"))
    kind = check_format(format, int8=int8)
    _check_target(target, encoder, overwrite)
    if int8 and calibration is None:
        raise ConfigError(
            "int8 needs calibration text: give a file of sentences like those to be encoded, one "
            "per line"
        )
    if encoder.engine is not None:
        raise ModelError(f"{encoder.source} is exported already; export the model it was made from")
    if encoder.device.type != "cpu":
        encoder = copy.deepcopy(encoder).to("cpu")
    encoder.require_padding(f"export to {format}")
    try:
        kind.require()
    except ImportError as error:
        raise MissingExtraError(f"export to {format}", kind.extra) from error
    sample = [] if calibration is None else random_sample(calibration, CALIBRATION + HELD_OUT)
    if int8 and len(sample) < LEAST:
        raise DataError(
            f"{len(sample)} distinct calibration sentences; at least {LEAST} are needed, "
            f"{CALIBRATION} to {CALIBRATION + HELD_OUT} are better"
        )
    writer = _Writer(encoder, kind, format, source or str(encoder.source or "unknown"))
    logger.info("exporting %s to %s", writer.name, format)
    with (
        tempfile.TemporaryDirectory(prefix="simcse-export-") as scratch,
        staged_folder(target) as staging,
    ):
        write_settings(encoder, staging, _card(encoder, format))
        plain = Path(scratch) if int8 else staging
        if int8:
            write_settings(encoder, plain, "")
        verified = sample[:HELD_OUT] or list(SENTENCES)
        difference = writer.write_fp32(plain, verified)
        quantized = writer.write_int8(plain, staging, sample) if int8 else {}
        size = sum((staging / file).stat().st_size for file in kind.files)
    return Exported(
        folder=str(target),
        format=format,
        precision="int8" if int8 else "fp32",
        bytes=size,
        sentences=len(verified),
        max_difference=difference,
        **quantized,
    )


@dataclass(frozen=True)
class _Writer:
    """Writes the graphs of one encoder in one format."""

    encoder: SentenceEncoder
    kind: ExportFormat
    format: str
    name: str

    def write_fp32(self, folder: Path, texts: list[str]) -> float:
        """Write the float32 graph and return its largest difference from torch on ``texts``."""
        encoder = self.encoder
        graph, example = SentenceGraph(encoder).eval(), example_batch(encoder)
        with (
            _unsupported(f"{type(encoder.backbone).__name__} cannot be exported to {self.format}"),
            torch.no_grad(),
            quiet_transformers(),
            warnings.catch_warnings(),
            stock_attention(encoder),
        ):
            # Tracing warns at each branch; a value frozen by mistake shows in the comparison below.
            warnings.simplefilter("ignore")
            self.kind.write(graph, example, outputs(encoder.normalize), folder)
            self.kind.open(folder, threads=1).run(*(each.numpy() for each in example))
        self._write_facts(folder, "fp32")
        expected, got = _vectors(encoder, texts), _vectors(self._opened(folder), texts)
        difference = float(np.abs(expected - got).max() / max(1.0, np.abs(expected).max()))
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the {self.format} graph of {self.name} differs from torch by {difference:.2g}, "
                f"and at most {TOLERANCE:g} is allowed; nothing was written; export to another "
                "format"
            )
        return difference

    def write_int8(self, fp32: Path, folder: Path, sample: list[str]) -> dict[str, Any]:
        """Write the int8 graph and measure its cosines to torch on held-out sentences."""
        # The last quarter at least is held out.
        chosen = sample[: min(CALIBRATION, len(sample) * 3 // 4)]
        rest = sample[len(chosen) :]
        logger.info("calibrating int8 on %d sentences", len(chosen))
        with _unsupported(f"{self.name} cannot be quantized for {self.format}"):
            self.kind.quantize(fp32, _batches(self.encoder, chosen), folder)
        self._write_facts(folder, "int8")
        found = cosines(_vectors(self.encoder, rest), _vectors(self._opened(folder), rest))
        return {
            "calibrated_on": len(chosen),
            "held_out": len(rest),
            "cosine_mean": float(found.mean()),
            "cosine_min": float(found.min()),
        }

    def _opened(self, folder: Path) -> SentenceEncoder:
        from simcse_kit.encoder.encoder import SentenceEncoder

        return SentenceEncoder.load(folder, max_length=self.encoder.max_length, device="cpu")

    def _write_facts(self, folder: Path, precision: Literal["fp32", "int8"]) -> None:
        encoder, kind = self.encoder, self.kind
        row = encoder.tokenize([SENTENCES[2]])[0][0]
        check = Check(input_ids=row, vector=[])
        vector = kind.open(folder, threads=1).run(*check.batch())[0]
        check.vector = [float(f"{value:.6g}") for value in np.asarray(vector)]
        facts = EngineFacts(
            schema_version=SCHEMA,
            format=self.format,
            precision=precision,
            dim=encoder.embedding_dim,
            positions=position_limit(encoder.backbone),
            vocabulary=encoder.backbone.get_input_embeddings().num_embeddings,
            files={file: (folder / file).stat().st_size for file in kind.files},
            instructions=int8_instructions(),
            versions=installed(kind),
            source=self.name,
            check=check,
        )
        write_facts(folder, facts)


def _check_target(target: Path, encoder: SentenceEncoder, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; give the name of a folder")
    if encoder.source is not None and target.resolve() == encoder.source.resolve():
        raise ConfigError(f"{target} is the model itself; give another folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise ConfigError(f"{target} is not empty; give another folder, or allow overwriting it")


def _batches(encoder: SentenceEncoder, texts: Sequence[str]) -> list[PaddedBatch]:
    """Return one batch per sentence, so that padding does not affect the ranges."""
    batches = []
    for row in encoder.tokenize(texts)[0]:
        ids, mask = pad_batch([row], encoder.tokenizer.pad_token_id)
        batches.append((ids.numpy(), mask.numpy()))
    return batches


@contextmanager
def _unsupported(what: str) -> Iterator[None]:
    """Raise a ModelError for any exception, as the tools raise many kinds on unknown operators."""
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(f"{what}: {reason:.300}; try another format") from error


def _vectors(encoder: SentenceEncoder, texts: list[str]) -> NDArray[np.float32]:
    """Return vectors that are not normalized, without a warning about truncated sentences."""
    vectors: NDArray[np.float32] = vectors_of_rows(encoder, encoder.tokenize(texts)[0]).numpy()
    return vectors


def _card(encoder: SentenceEncoder, format: str) -> str:
    form = ""
    if encoder.template is not None:
        form = f"\nThe ids are those of the sentence in the template `{encoder.template.text}`.\n"
    return f"""# Exported sentence encoder

An encoder from token ids to sentence vectors as one {format} graph, made with simcse_kit:
{encoder.embedding_dim} dimensions, pooling `{encoder.pooling}`, up to {encoder.max_length} tokens.

```python
from simcse_kit import SentenceEncoder
SentenceEncoder.load("path/to/this/folder").encode(["A sentence.", "Another one."])
```

Inputs `input_ids` and `attention_mask`, both (n, L) int64, padded on the right; the output
`sentence_embedding` is (n, {encoder.embedding_dim}) float32.
{form}"""
