"""Comparison of methods: from the same encoder, on the same batches, with several seeds."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.encoder.device import known_device
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.training.prepare import check
from simcse_kit.training.study.figures import write_plot
from simcse_kit.training.study.runs import RunRecord, finished_run, measured, run_inside, run_once
from simcse_kit.training.study.table import StudyRow, rows_of, text_table
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.progress import progress_bar
from simcse_kit.utils.settings import merge, validated
from simcse_kit.utils.spec import Call, parse_list

__all__ = ["Study", "compare_methods", "variants"]

logger = logging.getLogger(__name__)

START = "start"


@dataclass(frozen=True)
class Study:
    """Result of a comparison of methods.

    Attributes:
        folder: the folder with study.json, study.md, study.svg and a subfolder for each run.
        records: all runs; the untrained encoder comes first.
    """

    folder: Path
    records: list[RunRecord]

    @property
    def rows(self) -> list[StudyRow]:
        """One row for each method, best dev score first, the untrained encoder last."""
        return rows_of(self.records)

    def table(self) -> str:
        """Format the rows as Markdown."""
        return text_table(self.rows)


def variants(methods: str) -> dict[str, dict[str, Any]]:
    """Parse ``"simcse,moco(queue_size=1024, lr=1e-4)"`` into tables of methods by label.

    ``lr`` is not an option of a method; :func:`compare_methods` removes it from the table.

    Raises:
        ConfigError: the text has another form, an argument has no name, or a method occurs twice.

    Examples:
        >>> variants("simcse, moco(queue_size=512)")
        {'simcse': {'name': 'simcse'}, 'moco(queue_size=512)': {'name': 'moco', 'queue_size': 512}}
    """
    found: dict[str, dict[str, Any]] = {}
    for call in parse_list(methods, what="--methods"):
        if call.args:
            raise ConfigError(
                f"--methods: {call.name} has an argument without a name: {call.args[0]!r}; "
                "write option=value, see `simcse methods`"
            )
        label = _label(call)
        if label in found:
            raise ConfigError(f"--methods names {label} twice")
        found[label] = {"name": call.name, **dict(call.kwargs)}
    if not found:
        raise ConfigError(f"--methods is {methods!r}, which names no method; see `simcse methods`")
    return found


def _label(call: Call) -> str:
    options = ", ".join(f"{name}={value}" for name, value in call.kwargs)
    return f"{call.name}({options})" if options else call.name


def compare_methods(
    config: RunConfig,
    methods: str,
    *,
    seeds: int = 3,
    keep_encoders: bool = False,
    resume: bool = False,
    allow_call: Collection[str] = (),
) -> Study:
    """Train each method with each seed, and write one table and one plot.

    All runs start from ``config.model`` and get the same rows in the same order, because the order
    is a function of the seed. The checkpoint of each run is chosen by the dev score, so this score
    shows which method learns, but it is not a test score.

    Args:
        config: the configuration of all runs, except for the method; ``training.output`` is the
            folder of the study, ``evaluation.dev`` must be set, ``training.seed`` is the first
            seed.
        methods: names with or without options: ``"simcse,moco(queue_size=1024)"``; the option
            ``lr`` is the learning rate of this method, instead of the study's.
        seeds: number of runs of each method.
        keep_encoders: whether to keep the encoder of each run.
        resume: whether to skip runs in the folder that finished with the same settings.
        allow_call: modules whose functions augmentations may call.

    Raises:
        ConfigError: a method or a setting is wrong or cannot read the data; this is found before
            anything is trained.
        DataError: the training text or the dev set is wrong.
    """
    known_device(config.training.device)
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; give 1 or more")
    if config.evaluation.dev is None:
        raise ConfigError("methods are compared by a dev score; give --dev PATH")
    folder = Path(config.training.output)
    jobs = _jobs(config, methods, seeds)
    dev = DevSet.load(config.evaluation.dev)
    _check_folder(folder, resume=resume)
    for label, run in jobs[: len(jobs) // seeds]:
        check(run_inside(run, folder / "runs" / _file_name(label)), allow_call=allow_call)
    encoder = SentenceEncoder.load(
        config.model.name,
        pooling=config.model.pooling,
        trust_remote_code=config.model.trust_remote_code,
        device=config.training.device,
    )
    records = [RunRecord(START, None, measured(encoder, dev))]
    del encoder
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar(len(jobs), desc="compare", unit=" runs") as bar:
        for label, run in jobs:
            place = folder / "runs" / f"{_file_name(label)}-seed{run.training.seed}"
            record = finished_run(place, run) if resume else None
            if record is None:
                record = run_once(
                    run,
                    dev,
                    place,
                    method=label,
                    keep_encoder=keep_encoders,
                    allow_call=allow_call,
                )
            if record.failed is not None:
                logger.warning("%s, seed %s failed: %s", label, record.seed, record.failed)
            records.append(record)
            # After each run, so that an interrupted study shows the finished ones.
            study = _write(folder, records, config)
            bar.update()
    return study


def _jobs(config: RunConfig, methods: str, seeds: int) -> list[tuple[str, RunConfig]]:
    """List the runs seed by seed, so that an interrupted study has runs of all methods."""
    base = config.model_dump(exclude={"method"})
    jobs = []
    for seed in range(config.training.seed, config.training.seed + seeds):
        for label, table in variants(methods).items():
            method = dict(table)
            training = {"seed": seed, "output": "encoder"}
            if "lr" in method:
                training["learning_rate"] = method.pop("lr")
            whole = merge(base, {"training": training, "method": method})
            jobs.append((label, validated(RunConfig, whole, where=label)))
    return jobs


def _check_folder(folder: Path, *, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; give a folder")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"--output {folder} is not empty; --resume continues the study in it, or give another "
            "folder"
        )


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=]+", "-", label).strip("-")


def _write(folder: Path, records: list[RunRecord], config: RunConfig) -> Study:
    study = Study(folder, list(records))
    document = {
        "schema": 1,
        "config": config.model_dump(exclude={"method"}),
        "rows": [row.to_json() for row in study.rows],
        "runs": [record.to_json() for record in records],
    }
    write_atomic(folder / "study.json", json.dumps(document, indent=1) + "\n")
    write_atomic(folder / "study.md", study.table() + "\n")
    write_plot(study.rows, folder / "study.svg")
    return study
