"""The steps of an evaluation: collect the texts of tasks, encode them once, score the vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from simcse_kit.encoder.device import Device
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import TokenCounts, collected
from simcse_kit.encoder.unknown_text import check_known
from simcse_kit.evaluation.embed import Embeddings, Encoder, embed
from simcse_kit.evaluation.geometry import geometry
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.report.details import exhibit
from simcse_kit.evaluation.results import STANDARD_TASKS, Report, TaskResult
from simcse_kit.evaluation.statistics.comparison import score_intervals
from simcse_kit.evaluation.tasks.base import Task
from simcse_kit.evaluation.tasks.sts import score_sts
from simcse_kit.utils.environment import environment
from simcse_kit.utils.prompt_choice import PromptChoice, Role, has_role_prompts

__all__ = ["EvaluateOptions", "Material", "Vectors"]


class EvaluateOptions(TypedDict, total=False):
    """Keyword arguments of :func:`~simcse_kit.evaluation.evaluate.evaluate`.

    Attributes:
        geometry_on: data for alignment and uniformity: a name or file such as ``"STSB"`` (its test
            split), ``"STSB-dev"`` or ``"STSB-full"`` (the whole set, as in the papers), or None to
            skip them. With ``"STSB"``, the default, and no STSB among the tasks, it is the first
            task that has positive pairs.
        resamples: number of bootstrap resamples for confidence intervals, such as 10,000; 0, the
            default, for no intervals.
        exhibits: also collect the sentences that a report page shows.
        scale: lowest and highest score that a graded pair could have, such as (0, 5), for pairs of
            files and in memory; inferred by default. A pair above 80 % of the highest score counts
            as positive for alignment.
        allow_unknown: evaluate even if the tokenizer does not know most of the text.
        progress: show progress bars, also in ``encode`` if it accepts ``progress``.
        device: device of a model that is given by its name, as for :meth:`SentenceEncoder.load`.
        prompt: text in front of every sentence, or two: for queries (and texts of other tasks), and
            for the documents of retrieval tasks. By default the encoder's own prompts: the default
            one, and for retrieval those of ``encode_query`` and ``encode_document``.
        prompt_name: one or two names of the encoder's prompts, instead.
    """

    geometry_on: str | None
    resamples: int
    exhibits: bool
    scale: Sequence[float] | str | None
    allow_unknown: bool
    progress: bool
    device: Device
    prompt: str | Sequence[str] | None
    prompt_name: str | Sequence[str] | None


@dataclass(frozen=True)
class Material:
    """The loaded data of an evaluation.

    Attributes:
        sts: subsets of each STS task and file of graded pairs.
        others: other tasks by name.
        shape: pairs for alignment and uniformity with their description; None for none.
    """

    sts: dict[str, list[PairSet]]
    others: dict[str, Task]
    shape: tuple[PairSet, str] | None

    def sentences(self, *, without_roles: bool = False) -> list[str]:
        """List the texts of all tasks, or only those that are neither queries nor documents."""
        needed = [part for sets in self.sts.values() for part in sets]
        needed += [] if self.shape is None else [self.shape[0]]
        tasks = [task for task in self.others.values() if not (without_roles and _roles(task))]
        texts = [text for part in needed for text in part.sentences()]
        return texts + [text for task in tasks for text in task.sentences()]

    def of_role(self, role: Role) -> list[str]:
        """List the queries or the documents of all tasks that have them."""
        return [text for task in self.others.values() for text in _roles(task).get(role, ())]


def _roles(task: Task) -> dict[Role, list[str]]:
    found = getattr(task, "roles", None)
    return {} if found is None else found()


@dataclass(frozen=True)
class Vectors:
    """An encoder and its vectors of the texts of tasks.

    Attributes:
        encoder: the encoder.
        name: name of the model in reports.
        material: the tasks.
        embeddings: the vectors.
        tokens: what tokenizing lost.
    """

    encoder: Encoder
    name: str
    material: Material
    embeddings: Embeddings
    tokens: TokenCounts

    @classmethod
    def of(
        cls, encoder: Encoder, name: str, material: Material, options: EvaluateOptions
    ) -> Vectors:
        """Encode the texts of tasks: each distinct one once, or once for each role.

        Raises:
            DataError: the encoder's tokenizer does not know most of the text.
            ModelError: ``encode`` did not return (n, d) finite, non-zero vectors.
        """
        if isinstance(encoder, SentenceEncoder):
            allowed = options.get("allow_unknown", False)
            what = "the text of the tasks"
            check_known(encoder, material.sentences(), what=what, allow=allowed)
        prompts = PromptChoice.of(options.get("prompt"), options.get("prompt_name"))
        progress = options.get("progress", False)
        apart = has_role_prompts(encoder, prompts)
        with collected() as tokens:
            texts = material.sentences(without_roles=apart)
            found = embed(encoder, texts, prompts=prompts, progress=progress)
            for role in _ROLES if apart else ():
                texts = material.of_role(role)
                if texts:
                    found.roles[role] = embed(
                        encoder, texts, role=role, prompts=prompts, progress=progress
                    )
        return cls(encoder, name, material, found, tokens)

    def report(self, options: EvaluateOptions, start: float, dimensions: int | None) -> Report:
        """Score the vectors.

        Args:
            options: options of the evaluation.
            start: time of its start, from ``time.perf_counter``.
            dimensions: number of first dimensions that are scored; None for all.
        """
        progress, resamples = options.get("progress", False), options.get("resamples", 0)
        vectors = self.embeddings if dimensions is None else self.embeddings.truncated(dimensions)
        sts, shape = self.material.sts, self.material.shape
        results = {key: score_sts(key, sets, vectors) for key, sets in sts.items()}
        scores = {
            key: replace(task.score(vectors, progress=progress), name=key)
            for key, task in self.material.others.items()
        }
        found = None if shape is None else geometry(vectors, *shape, progress=progress)
        details = None
        if options.get("exhibits", False):
            details = exhibit(self.encoder, vectors, sts, results, *(shape or (None, "")))
        pooling = getattr(self.encoder, "pooling", None)
        report = Report(
            model=self.name if dimensions is None else f"{self.name}, {dimensions} dimensions",
            pooling=pooling if isinstance(pooling, str) else "unknown",
            tasks=results,
            average=_average(results),
            geometry=found,
            versions=environment(),
            seconds=time.perf_counter() - start,
            beyond_sts=scores,
            exhibit=details,
            tokens=self.tokens if self.tokens.sentences else None,
            dimensions=dimensions,
        )
        if not resamples or not results:
            return report
        intervals = score_intervals(report, resamples=resamples, progress=progress)
        return replace(report, intervals=intervals)


_ROLES: tuple[Role, ...] = ("query", "document")


def _average(results: dict[str, TaskResult]) -> float | None:
    if any(task not in results for task in STANDARD_TASKS):
        return None
    return float(np.mean([results[task].spearman for task in STANDARD_TASKS]))
