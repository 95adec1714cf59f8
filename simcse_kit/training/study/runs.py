"""One training run of a study, in a separate process so that its memory can be measured."""

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
from simcse_kit.training.child_process import error_line, permission_flags, train_command
from simcse_kit.training.state.output_dir import METRICS, RUN_FILE
from simcse_kit.utils.files import write_atomic

__all__ = ["FIGURES", "RunRecord", "finished_run", "measured", "run_inside", "run_once"]

logger = logging.getLogger(__name__)

RECORD = "record.json"
_LOG = "log.txt"
_ENCODER = "encoder"
# ru_maxrss is in kibibytes, except on macOS, where it is in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

FIGURES = (
    "dev_spearman",
    "alignment",
    "uniformity",
    "effective_rank",
    "sentences_per_second",
    "peak_mb",
)
"""Names of what is measured for each run."""


@dataclass(frozen=True)
class RunRecord:
    """A run of a study, or the untrained encoder.

    Attributes:
        method: label of the method; ``start`` for the encoder before training.
        seed: seed of the run; None for the encoder before training.
        figures: numbers by the names of :data:`FIGURES`; undefined ones are left out.
        best_step: step of the checkpoint that was kept; 0 if the start was kept.
        failed: the reason if the run failed, which has no figures.
    """

    method: str
    seed: int | None
    figures: dict[str, float]
    best_step: int | None = None
    failed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record for record.json and study.json."""
        return asdict(self)


def measured(encoder: SentenceEncoder, dev: DevSet) -> dict[str, float]:
    """Measure dev score, alignment, uniformity and effective rank of an encoder."""
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
    """Change a configuration so that the run writes its encoder into ``folder``."""
    training = config.training.model_copy(update={"output": str(folder / _ENCODER)})
    return config.model_copy(update={"training": training})


def finished_run(folder: Path, config: RunConfig) -> RunRecord | None:
    """Read the record of an earlier run in a folder; None if unfinished or with other settings."""
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
    """Train in a separate process, then score the saved encoder.

    The folder keeps run.toml, metrics.jsonl, the log and record.json, which is written last.

    Args:
        config: the configuration; its output folder is replaced by one inside ``folder``.
        dev: the dev set to score on.
        folder: the folder of this run; the files of an earlier run in it are removed.
        method: label of the method.
        keep_encoder: whether to keep the encoder, in ``folder/encoder``.
        allow_call: modules whose functions augmentations may call.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    encoder = folder / _ENCODER
    write_atomic(folder / RUN_FILE, run_inside(config, folder).to_toml())
    result, peak = _train(folder, permission_flags(config, allow_call))
    seed = config.training.seed
    if isinstance(result, str):
        record = RunRecord(method, seed, {}, failed=result)
    else:
        figures = measured(SentenceEncoder.load(encoder, device=config.training.device), dev)
        figures["sentences_per_second"] = _speed(encoder / METRICS, result)
        on_gpu = result["made_with"]["device"].startswith("cuda")
        figures["peak_mb"] = (result["peak_memory"] if on_gpu else peak) / 1e6
        best_step = 0 if result["improved"] is False else result["best_step"]
        record = RunRecord(method, seed, figures, best_step=best_step)
        shutil.copyfile(encoder / METRICS, folder / METRICS)
    shutil.rmtree(encoder / "checkpoints", ignore_errors=True)
    if not keep_encoder:
        shutil.rmtree(encoder, ignore_errors=True)
    document = record.to_json() | {"config": config.to_toml()}
    write_atomic(folder / RECORD, json.dumps(document, indent=1) + "\n")
    return record


def _train(folder: Path, flags: list[str]) -> tuple[dict[str, Any] | str, int]:
    """Run ``simcse train``; return its result, or the reason if it failed, and the peak bytes."""
    command = train_command(folder / RUN_FILE, ["--json", *flags])
    log = folder / _LOG
    with log.open("wb") as errors, (folder / "out.json").open("w+b") as out:
        with _ended(subprocess.Popen(command, stdout=out, stderr=errors)) as process:
            # Only of this child; RUSAGE_CHILDREN would be the largest of all so far.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    (folder / "out.json").unlink()
    peak = usage.ru_maxrss * _RSS_UNIT
    if process.returncode == 0:
        document: dict[str, Any] = json.loads(text)
        return document, peak
    line = error_line(log.read_text(encoding="utf-8", errors="replace"))
    if process.returncode == 2:
        return line, peak
    return f"ended with code {process.returncode}, see {log}: {line[:200]}", peak


def _speed(metrics: Path, result: dict[str, Any]) -> float:
    """Read the median speed between evaluations, or the mean of a run whose log has none."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    speeds = [row["sentences_per_second"] for row in rows if "sentences_per_second" in row]
    return float(statistics.median(speeds) if speeds else result["sentences_per_second"])


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End the child if this process is interrupted."""
    try:
        yield process
    finally:
        if process.returncode is None and process.poll() is None:
            process.terminate()
            process.wait()
