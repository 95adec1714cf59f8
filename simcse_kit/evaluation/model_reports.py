"""Evaluation and comparison of models by name, with a report page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from simcse_kit.encoder.device import Device, known_device
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.evaluate import (
    DEFAULT_GEOMETRY,
    CompareOptions,
    evaluate,
    evaluate_dimensions,
    graded_pairs,
)
from simcse_kit.evaluation.models import check_model, open_encoder
from simcse_kit.evaluation.pair_set import PairSet, read_scale
from simcse_kit.evaluation.postprocess import Trials, try_maps
from simcse_kit.evaluation.results import Report
from simcse_kit.evaluation.scoring import EvaluateOptions
from simcse_kit.evaluation.statistics.bootstrap import LEVEL, RESAMPLES, check_settings
from simcse_kit.evaluation.statistics.comparison import Comparison, compare_reports
from simcse_kit.evaluation.statistics.seeds import Systems, check_seeds, compare_systems
from simcse_kit.evaluation.tasks.load import Names, load_all_tasks, load_tasks
from simcse_kit.evaluation.tasks.retrieval import with_engine

__all__ = ["ModelReports", "compare_models", "evaluate_models"]


@dataclass(frozen=True)
class ModelReports:
    """The reports of several models on the same tasks.

    Attributes:
        reports: report of each model, in order.
        pairs: graded pairs by task name.
        folders: folder of each model; None if it is not a model of ours.
        comparison: differences between the models; None after :func:`evaluate_models`.
    """

    reports: list[Report]
    pairs: dict[str, list[PairSet]]
    folders: list[Path | None]
    comparison: Comparison | Systems | None = None

    def write_page(self, folder: Path, *, audit_training: bool = False) -> None:
        """Write the report page.

        Args:
            folder: folder of the page, created if it does not exist.
            audit_training: search the training files that each model's run.toml names for the
                sentences of the tasks. It can name any file; use it for models that you trust.

        Raises:
            ConfigError: the page cannot be written.
        """
        from simcse_kit.evaluation.contamination.recorded import recorded_leaks
        from simcse_kit.evaluation.report.page import write_report
        from simcse_kit.evaluation.run_records import read_history

        comparison = self.comparison if isinstance(self.comparison, Comparison) else None
        trained = self.folders[-1] if comparison is None else None
        write_report(
            self.reports,
            folder,
            title="Sentence encoder" if comparison is None else "Sentence encoders compared",
            history=None if trained is None else read_history(trained),
            comparison=comparison,
            leaks=[
                recorded_leaks(each, self.pairs) if each and audit_training else None
                for each in self.folders
            ],
        )


def evaluate_models(
    models: Sequence[tuple[str, str | None]],
    tasks: Names = "sts",
    *,
    data: str | Path | None = None,
    trials: Trials | None = None,
    dimensions: Sequence[int] = (),
    engine: str = "exact",
    **options: Unpack[EvaluateOptions],
) -> ModelReports:
    """Score models on the same tasks.

    All data and names are checked before a model is opened, and all models are opened before the
    first one is scored.

    Args:
        models: name and pooling of each model, as for
            :func:`~simcse_kit.evaluation.models.open_encoder`.
        tasks: names and paths, as for :func:`~simcse_kit.evaluation.tasks.load.load_all_tasks`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        trials: maps to try with the last model; each one adds a report.
        dimensions: numbers of first dimensions to score, each with a report in place of the one of
            the model; empty for the whole vectors.
        engine: search engine of retrieval tasks, "exact" or "faiss".
        **options: see :class:`~simcse_kit.evaluation.scoring.EvaluateOptions`.

    Raises:
        SimcseError: as for :func:`~simcse_kit.evaluation.evaluate.evaluate`.
    """
    device = options.get("device")
    known_device(device)  # an absent one is refused before any data is read
    if options.get("resamples"):
        check_settings(options["resamples"], LEVEL)
    loaded = load_all_tasks(tasks, data, read_scale(options.get("scale")))
    loaded = with_engine(loaded, engine)
    geometry_on = options.get("geometry_on", DEFAULT_GEOMETRY)
    if geometry_on not in (None, DEFAULT_GEOMETRY):
        load_tasks([geometry_on], data)
    folders = [check_model(name) for name, _ in models]
    encoders = [
        (open_encoder(name, pooling=pooling, device=device), name) for name, pooling in models
    ]
    if dimensions:
        found = [
            evaluate_dimensions(encoder, dimensions, loaded, data=data, name=name, **options)
            for encoder, name in encoders
        ]
        folders = [folder for folder in folders for _ in dimensions]
        return ModelReports([one for each in found for one in each], graded_pairs(loaded), folders)
    reports = [
        evaluate(encoder, loaded, data=data, name=name, **options) for encoder, name in encoders
    ]
    if trials is not None:
        encoder, name = encoders[-1]
        for label, changed in try_maps(encoder, trials):
            changed_name = f"{name} + {label}"
            reports.append(evaluate(changed, loaded, data=data, name=changed_name, **options))
            folders.append(folders[len(models) - 1])
    return ModelReports(reports, graded_pairs(loaded), folders)


def compare_models(
    systems: Sequence[Sequence[str]],
    tasks: Names = "sts",
    *,
    data: str | Path | None = None,
    exhibits: bool = False,
    allow_unknown: bool = False,
    device: Device = "auto",
    **options: Unpack[CompareOptions],
) -> ModelReports:
    """Test whether models differ from the first one.

    Args:
        systems: names of models; several names in one system are seeds of the same training.
        tasks: names and paths, as for :func:`~simcse_kit.evaluation.tasks.load.load_tasks`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        exhibits: collect geometry and sentences for a report page.
        allow_unknown: evaluate even if a tokenizer does not know most of the text.
        device: device of the models, as for :meth:`SentenceEncoder.load`.
        **options: see :class:`~simcse_kit.evaluation.evaluate.CompareOptions`.

    Returns:
        The reports with a :class:`Comparison`, or with :class:`Systems` if there are seeds.

    Raises:
        SimcseError: as for :func:`~simcse_kit.evaluation.evaluate.compare`; or the systems have
            different numbers of seeds.
    """
    known_device(device)
    level, resamples = options.get("level", LEVEL), options.get("resamples", RESAMPLES)
    check_settings(resamples, level)
    if len(systems) < 2:
        raise ConfigError("compare takes two models or more; `simcse eval` scores one")
    over_seeds = any(len(system) > 1 for system in systems)
    if over_seeds:
        check_seeds([len(system) for system in systems])
    loaded = load_tasks(tasks, data)
    if not over_seeds:
        check_settings(resamples, level, (len(systems) - 1) * len(loaded))
    folders = [check_model(name) for system in systems for name in system]
    reports = [
        [
            evaluate(
                open_encoder(name, device=device),
                loaded,
                data=data,
                name=name,
                geometry_on=DEFAULT_GEOMETRY if exhibits else None,
                exhibits=exhibits,
                allow_unknown=allow_unknown,
                progress=options.get("progress", False),
            )
            for name in system
        ]
        for system in systems
    ]
    every = [report for system in reports for report in system]
    found: Comparison | Systems
    if over_seeds:
        found = compare_systems(reports, level=level)
    else:
        found = compare_reports(every, loaded, **options)
    return ModelReports(every, loaded, folders, found)
