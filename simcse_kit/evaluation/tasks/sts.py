"""The seven STS tasks of the SimCSE protocol, their dev sets and variants, and their scores.

To add a task, add an entry to :data:`TASKS`. The published pair counts are checked on loading, so
that no score comes from a truncated or misaligned copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation import hub_pairs
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import STANDARD_TASKS, SubsetScore, TaskResult
from simcse_kit.evaluation.tasks.sts_files import READERS, SENTEVAL_REMEDY, locate
from simcse_kit.metrics.correlation import pearson, spearman
from simcse_kit.registry import closest

__all__ = ["TASKS", "PairSet", "STSTask", "find_task", "load_task", "score_sts"]


@dataclass(frozen=True)
class STSTask:
    """One named set of graded pairs.

    Args:
        name: name of the task.
        folder: name of its folder in the SentEval layout.
        kind: key of :data:`~simcse_kit.evaluation.tasks.sts_files.READERS`.
        subsets: file name parts, in order; the "all" score is over their concatenation.
        expected: published number of scored pairs in all subsets together.
        scale: lowest and highest gold score.
        citation: source of the data.
        hub: dataset on the Hugging Face Hub with the same pairs, or None.
        hub_splits: splits of that dataset to load; it does not mark the subsets.
    """

    name: str
    folder: str
    kind: str
    subsets: tuple[str, ...]
    expected: int
    scale: tuple[float, float]
    citation: str
    hub: str | None
    hub_splits: tuple[str, ...] = ("test",)

    def load(self, data_dir: str | Path) -> list[PairSet]:
        """Read all subsets from a folder in the SentEval layout.

        Raises:
            DataError: a folder or file is missing, a line is bad, or the number of pairs is wrong.
        """
        groups = ("",) if self.kind == "sick" else ("STS", "")
        folder = locate(Path(data_dir), self.folder, groups)
        read = READERS[self.kind]
        sets = [read(folder, subset, self.scale) for subset in self.subsets]
        self._check(sets, str(folder))
        return sets

    def load_from_hub(self) -> list[PairSet]:
        """Download from the Hub: one subset "all", or one for each of several splits.

        Raises:
            DataError: the Hub has no copy, cannot be reached, or has a wrong number of pairs.
        """
        self.require_hub()
        assert self.hub is not None
        single = len(self.hub_splits) == 1
        sets = [
            hub_pairs.fetch(self.hub, split, "all" if single else split, self.scale)
            for split in self.hub_splits
        ]
        self._check(sets, f"the Hub copy {self.hub}")
        return sets

    def require_hub(self) -> None:
        """Raise DataError if the Hub lacks the task; nothing is downloaded."""
        if self.hub is None:
            raise DataError(
                f"{self.name}: the Hub copy mteb/sickr-sts mixes train, trial and test (9,927 "
                f"pairs, task SICKR-all) and does not mark the {self.expected:,} pairs of this "
                f"task; {SENTEVAL_REMEDY}"
            )

    def _check(self, sets: list[PairSet], where: str) -> None:
        found = sum(map(len, sets))
        if found != self.expected:
            raise DataError(
                f"{self.name}: {found} scored pairs in {where}, but {self.expected} are "
                "published; download the data again, scores on other pairs cannot be compared"
            )


_STSB = "STS Benchmark (Cer et al. 2017, SemEval-2017 task 1, arXiv 1708.00055)"
_SICK = "SICK (Marelli et al. 2014, SemEval-2014 task 1)"


def _year(year: int, subsets: str, expected: int) -> STSTask:
    name, citation = f"STS{year}", f"SemEval-20{year} STS task (Agirre et al. 20{year})"
    parts, hub = tuple(subsets.split()), f"mteb/sts{year}-sts"
    return STSTask(name, f"{name}-en-test", "semeval", parts, expected, (0.0, 5.0), citation, hub)


def _benchmark(name: str, subsets: str, expected: int) -> STSTask:
    parts, hub = tuple(subsets.split()), "mteb/stsbenchmark-sts"
    splits = tuple("validation" if part == "dev" else part for part in parts)
    return STSTask(
        name, "STSBenchmark", "benchmark", parts, expected, (0.0, 5.0), _STSB, hub, splits
    )


def _sick(name: str, subsets: str, expected: int, hub: str | None = None) -> STSTask:
    return STSTask(name, "SICK", "sick", tuple(subsets.split()), expected, (1.0, 5.0), _SICK, hub)


_ENTRIES = (
    _year(12, "MSRpar MSRvid SMTeuroparl surprise.OnWN surprise.SMTnews", 3108),
    # The fourth subset of STS 2013, SMT, is not freely available, so published scores leave it out.
    _year(13, "FNWN headlines OnWN", 1500),
    _year(14, "deft-forum deft-news headlines OnWN images tweet-news", 3750),
    _year(15, "answers-forums answers-students belief headlines images", 3000),
    _year(16, "answer-answer headlines plagiarism postediting question-question", 1186),
    _benchmark("STSB", "test", 1379),
    _sick("SICKR", "test", 4927),
    _benchmark("STSB-dev", "dev", 1500),
    _benchmark("STSB-train", "train", 5749),
    _benchmark("STSB-full", "train dev test", 8628),
    _sick("SICKR-dev", "trial", 500),
    _sick("SICKR-all", "train trial test", 9927, "mteb/sickr-sts"),
)

TASKS: dict[str, STSTask] = {task.name: task for task in _ENTRIES}
"""All named STS tasks: the seven standard ones, then dev sets and variants."""


def find_task(name: str, *, also: Sequence[str] = ()) -> STSTask:
    """Return the STS task of this name, in upper or lower case.

    Args:
        name: the name.
        also: other names that the error message may suggest.

    Raises:
        ConfigError: the name is unknown; the message lists the known names.
    """
    by_key = {key.upper(): task for key, task in TASKS.items()}
    task = by_key.get(name.upper())
    if task is None:
        spelling = {known.upper(): known for known in (*TASKS, *also)}
        hint = closest(name.upper(), list(spelling))
        for key, known in spelling.items():
            hint = hint.replace(repr(key), repr(known))
        more = f", {', '.join(also)}" if also else ""
        raise ConfigError(
            f"unknown task {name!r}{hint}; known: sts (= {', '.join(STANDARD_TASKS)}), "
            f"{', '.join(TASKS)}{more}, or a .tsv or .csv file of graded pairs"
        )
    return task


def load_task(name: str, data: str | Path | None = None) -> list[PairSet]:
    """Load the subsets of a named task.

    Args:
        name: name of the task.
        data: folder in the SentEval layout; without it the task is downloaded from the Hub.

    Raises:
        ConfigError: the name is unknown.
        DataError: the data is missing or wrong, or cannot be downloaded.
    """
    task = find_task(name)
    return task.load_from_hub() if data is None else task.load(data)


def score_sts(
    name: str, sets: Sequence[PairSet], vectors: Callable[[list[str]], np.ndarray]
) -> TaskResult:
    """Score the cosines of an encoder against the gold scores.

    Args:
        name: name of the task.
        sets: the subsets of the task.
        vectors: function from n sentences to their (n, d) vectors.
    """
    cosines = [part.cosines(vectors) for part in sets]
    subsets = {
        part.name: SubsetScore(spearman(cos, part.gold), pearson(cos, part.gold), len(part))
        for part, cos in zip(sets, cosines, strict=True)
    }
    parts = np.array([score.spearman for score in subsets.values()])
    weights = np.array([score.pairs for score in subsets.values()])
    cosine, gold = np.concatenate(cosines), np.concatenate([part.gold for part in sets])
    return TaskResult(
        name=name,
        spearman=spearman(cosine, gold),
        pearson=pearson(cosine, gold),
        pairs=len(gold),
        mean=float(parts.mean()),
        wmean=float(np.average(parts, weights=weights)),
        subsets=subsets,
        cosines=cosine,
        gold=gold,
        scale=sets[0].scale,
    )
