"""The seven STS tasks of the SimCSE protocol, their dev sets and variants, as data.

Adding a task is adding an entry to :data:`TASKS`. Published pair counts are checked on loading, so
a figure never comes from a truncated or misaligned copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation import hub_pairs
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import STANDARD_TASKS
from simcse_kit.evaluation.tasks.sts_files import READERS, SENTEVAL_REMEDY, locate
from simcse_kit.registry import closest

__all__ = ["TASKS", "PairSet", "STSTask", "find_task", "load_task"]


@dataclass(frozen=True)
class STSTask:
    """One named set of graded pairs.

    Args:
        name: how users call it.
        folder: its folder in the SentEval layout.
        kind: key of :data:`~simcse_kit.evaluation.tasks.sts_files.READERS`.
        subsets: file name parts, in order; the "all" score is over their concatenation.
        expected: published number of scored pairs in all subsets together.
        scale: lowest and highest gold score.
        citation: who made the data.
        hub: dataset on the Hugging Face Hub with the same pairs, or None where none is known.
        hub_splits: its split for each part that is loaded; the Hub copies know no subsets.
        hub_refusal: why there is none, for the error message.
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
    hub_refusal: str = ""

    def load(self, data_dir: str | Path) -> list[PairSet]:
        """Read all subsets from a folder in the SentEval layout.

        Raises:
            DataError: folder or file missing, a bad line, or a wrong number of pairs.
        """
        groups = ("",) if self.kind == "sick" else ("STS", "")
        folder = locate(Path(data_dir), self.folder, groups)
        read = READERS[self.kind]
        sets = [read(folder, subset, self.scale) for subset in self.subsets]
        self._check(sets, str(folder))
        return sets

    def load_from_hub(self) -> list[PairSet]:
        """Fetch from the Hub: one subset "all", or one for each split where there are several.

        Raises:
            DataError: there is no Hub copy, no network, or a wrong number of pairs.
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
        """Raise DataError where the task cannot be had from the Hub; fetches nothing."""
        if self.hub is None:
            raise DataError(f"{self.name}: {self.hub_refusal}; {SENTEVAL_REMEDY}")

    def _check(self, sets: list[PairSet], where: str) -> None:
        found = sum(map(len, sets))
        if found != self.expected:
            raise DataError(
                f"{self.name}: {found} scored pairs in {where}, but {self.expected} are "
                "published; fetch the data again, scores on another set cannot be compared"
            )


_SEMEVAL = "SemEval-{} STS task ({})"
_STSB = "STS Benchmark (Cer et al. 2017, SemEval-2017 task 1, arXiv 1708.00055)"
_SICK = "SICK (Marelli et al. 2014, SemEval-2014 task 1)"
_SICK_REFUSAL = (
    "the Hub copy mteb/sickr-sts mixes train, trial and test (9,927 pairs, task SICKR-all) and "
    "does not mark the {} pairs of this task"
)


def _year(name: str, subsets: str, expected: int, source: str) -> STSTask:
    year = name.removeprefix("STS")
    return STSTask(
        name=name,
        folder=f"{name}-en-test",
        kind="semeval",
        subsets=tuple(subsets.split()),
        expected=expected,
        scale=(0.0, 5.0),
        citation=_SEMEVAL.format(f"20{year}", source),
        hub=f"mteb/sts{year}-sts",
    )


def _benchmark(
    name: str, subsets: tuple[str, ...], expected: int, splits: tuple[str, ...]
) -> STSTask:
    return STSTask(
        name=name,
        folder="STSBenchmark",
        kind="benchmark",
        subsets=subsets,
        expected=expected,
        scale=(0.0, 5.0),
        citation=_STSB,
        hub="mteb/stsbenchmark-sts",
        hub_splits=splits,
    )


def _sick(name: str, subsets: tuple[str, ...], expected: int, hub: str | None) -> STSTask:
    return STSTask(
        name=name,
        folder="SICK",
        kind="sick",
        subsets=subsets,
        expected=expected,
        scale=(1.0, 5.0),
        citation=_SICK,
        hub=hub,
        hub_refusal=_SICK_REFUSAL.format(f"{expected:,}"),
    )


_ENTRIES = (
    _year(
        "STS12",
        "MSRpar MSRvid SMTeuroparl surprise.OnWN surprise.SMTnews",
        3108,
        "Agirre et al. 2012",
    ),
    # STS2013's fourth subset, SMT, is under a licence that keeps it out of every published figure
    _year("STS13", "FNWN headlines OnWN", 1500, "Agirre et al. 2013"),
    _year(
        "STS14", "deft-forum deft-news headlines OnWN images tweet-news", 3750, "Agirre et al. 2014"
    ),
    _year(
        "STS15",
        "answers-forums answers-students belief headlines images",
        3000,
        "Agirre et al. 2015",
    ),
    _year(
        "STS16",
        "answer-answer headlines plagiarism postediting question-question",
        1186,
        "Agirre et al. 2016",
    ),
    _benchmark("STSB", ("test",), 1379, ("test",)),
    _sick("SICKR", ("test",), 4927, None),
    _benchmark("STSB-dev", ("dev",), 1500, ("validation",)),
    _benchmark("STSB-train", ("train",), 5749, ("train",)),
    _benchmark("STSB-full", ("train", "dev", "test"), 8628, ("train", "validation", "test")),
    _sick("SICKR-dev", ("trial",), 500, None),
    _sick("SICKR-all", ("train", "trial", "test"), 9927, "mteb/sickr-sts"),
)

TASKS: dict[str, STSTask] = {task.name: task for task in _ENTRIES}
"""All named tasks: the seven standard ones, then dev sets and variants."""


def find_task(name: str) -> STSTask:
    """The task called ``name``, upper and lower case alike.

    Raises:
        ConfigError: there is none; the message lists the names.
    """
    by_key = {key.upper(): task for key, task in TASKS.items()}
    task = by_key.get(name.upper())
    if task is None:
        hint = closest(name.upper(), list(by_key))
        for key, known in by_key.items():
            hint = hint.replace(repr(key), repr(known.name))
        raise ConfigError(
            f"unknown task {name!r}{hint}; known: sts (= {', '.join(STANDARD_TASKS)}), "
            f"{', '.join(TASKS)}, or a .tsv or .csv file of graded pairs"
        )
    return task


def load_task(name: str, data: str | Path | None = None) -> list[PairSet]:
    """The subsets of a named task, from ``data`` (SentEval layout) or, without it, from the Hub.

    Raises:
        ConfigError: unknown name.
        DataError: the data is missing, wrong, or cannot be fetched.
    """
    task = find_task(name)
    return task.load_from_hub() if data is None else task.load(data)
