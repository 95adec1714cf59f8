"""One training run of a study, in a process of its own, so that its memory is its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.evaluation.embed import embed
from simcse_kit.evaluation.geometry import geometry
from simcse_kit.metrics.correlation import spearman
from simcse_kit.training.allowed_calls import grant_flags
from simcse_kit.training.state.output_dir import METRICS, RUN_FILE
from simcse_kit.utils.files import write_whole

__all__ = ["FIGURES", "RunRecord", "finished_run", "measured", "run_inside", "run_once"]

logger = logging.getLogger(__name__)

RECORD = "record.json"
_LOG = "log.txt"
_ENCODER = "encoder"
# ru_maxrss is in kibibytes, but on macOS in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

FIGURES = (
    "dev_spearman",
    "alignment",
    "uniformity",
    "effective_rank",
    "sentences_per_second",
    "peak_mb",
)
"""What is measured of every run."""


@dataclass(frozen=True)
class RunRecord:
    """A run of a study, or the untrained encoder.

    Attributes:
        method: label of the method; ``start`` for the encoder before training.
        seed: of the run; None for the start.
        figures: number by name, of :data:`FIGURES`; what is undefined is left out.
        best_step: step of the checkpoint that was kept.
        failed: why there are no figures.
    """

    method: str
    seed: int | None
    figures: dict[str, float]
    best_step: int | None = None
    failed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For record.json and study.json."""
        return asdict(self)


def measured(encoder: SentenceEncoder, dev: DevSet) -> dict[str, float]:
    """Dev score, alignment, uniformity and effective rank of an encoder."""
    vectors = embed(encoder, dev.pairs.sentences())
    shape = geometry(vectors, dev.pairs, dev.name)
    found = {
        "dev_spearman": spearman(dev.pairs.cosines(vectors), dev.pairs.gold),
        "alignment": shape.alignment,
        "uniformity": shape.uniformity,
        "effective_rank": shape.effective_rank,
    }
    return {name: value for name, value in found.items() if value == value}


def run_inside(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration of a run that writes its encoder into ``folder``."""
    training = config.training.model_copy(update={"output": str(folder / _ENCODER)})
    return config.model_copy(update={"training": training})


def finished_run(folder: Path, config: RunConfig) -> RunRecord | None:
    """What an earlier, uninterrupted run left in a folder; None where the settings differ."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if document.pop("config") != config.to_toml():
            return None
        return RunRecord(**document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def run_once(
    config: RunConfig,
    dev: DevSet,
    folder: Path,
    *,
    method: str,
    keep_encoder: bool,
    allow_call: Collection[str] = (),
) -> RunRecord:
    """Train in a process of its own, then score what it saved.

    The folder keeps run.toml, metrics.jsonl, the log and record.json, which is written last.

    Args:
        config: the run; its output folder is replaced by one inside ``folder``.
        dev: to score on.
        folder: of this run; what an earlier one left there is removed.
        method: label of the method.
        keep_encoder: keep the encoder too, in ``folder/encoder``.
        allow_call: modules whose functions augmentations may call.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    encoder = folder / _ENCODER
    write_whole(folder / RUN_FILE, run_inside(config, folder).to_toml())
    result, peak = _train(folder, grant_flags(config, allow_call))
    seed = config.training.seed
    if isinstance(result, str):
        record = RunRecord(method, seed, {}, failed=result)
    else:
        figures = measured(SentenceEncoder.load(encoder), dev)
        figures["sentences_per_second"] = _speed(encoder / METRICS, result)
        figures["peak_mb"] = peak / 1e6
        record = RunRecord(method, seed, figures, best_step=result["best_step"])
        shutil.copyfile(encoder / METRICS, folder / METRICS)
    shutil.rmtree(encoder / "checkpoints", ignore_errors=True)
    if not keep_encoder:
        shutil.rmtree(encoder, ignore_errors=True)
    document = record.to_json() | {"config": config.to_toml()}
    write_whole(folder / RECORD, json.dumps(document, indent=1) + "\n")
    return record


def _train(folder: Path, flags: list[str]) -> tuple[dict[str, Any] | str, int]:
    """The result of ``simcse train``, or the line that says why it failed; and peak bytes."""
    command = [sys.executable, "-m", "simcse_kit", "train", "--json"]
    command += ["--config", str(folder / RUN_FILE), *flags]
    log = folder / _LOG
    with log.open("wb") as errors, (folder / "out.json").open("w+b") as out:
        with _ended(subprocess.Popen(command, stdout=out, stderr=errors)) as process:
            # Of this child alone; RUSAGE_CHILDREN is the largest of all so far.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    (folder / "out.json").unlink()
    peak = usage.ru_maxrss * _RSS_UNIT
    if process.returncode == 0:
        document: dict[str, Any] = json.loads(text)
        return document, peak
    lines = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")
    if process.returncode == 2:
        return lines[-1].removeprefix("simcse: error: "), peak
    return f"ended with code {process.returncode}, see {log}: {lines[-1][:200]}", peak


def _speed(metrics: Path, result: dict[str, Any]) -> float:
    """Sentences a second between evaluations; of the whole run where the log has no line of it."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    speeds = [row["sentences_per_second"] for row in rows if "sentences_per_second" in row]
    return float(statistics.median(speeds) if speeds else result["sentences_per_second"])


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """No child goes on where this process is interrupted."""
    try:
        yield process
    finally:
        if process.returncode is None and process.poll() is None:
            process.terminate()
            process.wait()
