"""Metadata for the model card: base model, training data and scores of an encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from huggingface_hub import EvalResult, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from simcse_kit.encoder.folder.resolve import EMBEDDED
from simcse_kit.encoder.folder.safe_io import read_object
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.utils.settings import read_toml

__all__ = ["report_results", "run_metadata"]

# Names of sentence-transformers' evaluators, whose scores are not multiplied by 100.
_CORRELATIONS = {"spearman": "spearman_cosine", "pearson": "pearson_cosine"}


def run_metadata(folder: Path) -> dict[str, Any]:
    """Collect what the card states about a training run, by the names of the Hub's metadata.

    Args:
        folder: Output folder of a training run; other folders give no metadata.

    Returns:
        ``base_model`` and ``datasets``, if they are on the Hub, and ``eval_results``, if the best
        checkpoint was chosen by graded pairs.

    Raises:
        ModelError: ``run.toml`` or ``result.json`` cannot be read.
    """
    if not (folder / "run.toml").is_file() or not (folder / "result.json").is_file():
        return {}
    try:
        run = read_toml(folder / "run.toml")
    except ConfigError as error:
        raise ModelError(f"{error}; restore or delete the file") from None
    result = read_object(folder / "result.json")
    found: dict[str, Any] = {}
    base = _setting(run, "model", "name")
    if isinstance(base, str) and _is_hub_model(base):
        found["base_model"] = base
    files = _setting(run, "data", "train")
    names = [files] if isinstance(files, str) else files if isinstance(files, list) else []
    sets = [name[3:].partition("#")[0].partition(":")[0] for name in names if _is_hub_data(name)]
    if sets:
        found["datasets"] = list(dict.fromkeys(sets))
    # A run that did not help keeps the encoder that it started from.
    score = result.get("start_score" if result.get("improved") is False else "best_score")
    dev = _setting(run, "evaluation", "dev")
    if result.get("score_name") == "dev_spearman" and _is_number(score) and isinstance(dev, str):
        # A folder of STS data stands for its STS-B development set.
        name = "STSB-dev" if Path(dev).is_dir() else Path(dev).stem
        found["eval_results"] = [_correlation(name, "spearman", score)]
    return found


def report_results(report: str | os.PathLike[str] | Mapping[str, Any]) -> list[EvalResult]:
    """Convert the scores of an evaluation to results for the model card.

    Args:
        report: JSON file of ``simcse eval --json`` or ``--report``, or the return value of
            ``Report.to_json``. Of several models, the last one is used.

    Returns:
        Spearman and Pearson correlation of each STS task, and the main metric of each other task,
        as shares: 0.85 for a Spearman of 85.

    Raises:
        ModelError: The file cannot be read.
        ConfigError: The file has no scores.

    Examples:
        >>> task = {"spearman": 80.0, "pearson": 79.0}
        >>> for result in report_results({"tasks": {"STS12": task}}):
        ...     print(result.dataset_name, result.metric_type, result.metric_value)
        STS12 spearman_cosine 0.8
        STS12 pearson_cosine 0.79
    """
    document = report if isinstance(report, Mapping) else read_object(Path(report))
    reports = document.get("reports")
    if isinstance(reports, list) and reports and isinstance(reports[-1], Mapping):
        document = reports[-1]
    results = list(_results(document))
    if not results:
        where = "the report" if isinstance(report, Mapping) else os.fspath(report)
        raise ConfigError(
            f"{where} has no scores; give the JSON file of `simcse eval MODEL --json FILE`"
        )
    return results


def _results(document: Mapping[str, Any]) -> Iterator[EvalResult]:
    for name, task in _items(document, "tasks"):
        for measure in _CORRELATIONS:
            if _is_number(task.get(measure)):
                yield _correlation(name, measure, task[measure])
    for name, task in _items(document, "beyond_sts"):
        main, metrics = str(task.get("main")), task.get("metrics")
        value = metrics.get(main) if isinstance(metrics, Mapping) else None
        if _is_number(value):
            yield EvalResult(
                task_type=str(task.get("kind")),
                # The results of a model are grouped by type, so the types have to differ.
                dataset_type=name.lower(),
                dataset_name=name,
                metric_type=main,
                metric_name=main,
                metric_value=round(value / 100, 6),
            )


def _correlation(name: str, measure: str, score: float) -> EvalResult:
    return EvalResult(
        task_type="semantic-similarity",
        task_name="Semantic Similarity",
        dataset_type=name.lower(),
        dataset_name=name,
        metric_type=_CORRELATIONS[measure],
        metric_name=f"{measure.capitalize()} Cosine",
        metric_value=round(score / 100, 6),
    )


def _items(document: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tasks = document.get(key)
    for name, task in tasks.items() if isinstance(tasks, Mapping) else ():
        if isinstance(task, Mapping):
            yield str(name), task


def _setting(run: Mapping[str, Any], table: str, key: str) -> Any:
    section = run.get(table)
    return section.get(key) if isinstance(section, Mapping) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_hub_data(name: Any) -> bool:
    return isinstance(name, str) and name.startswith("hf:")


def _is_hub_model(name: str) -> bool:
    """Whether a model was downloaded from the Hub, and is not an embedded one or a folder."""
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return False
    return name not in EMBEDDED and not Path(name).exists() and isinstance(cached, str)
