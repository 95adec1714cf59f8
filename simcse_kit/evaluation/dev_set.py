"""The development set that selects the best checkpoint."""

from __future__ import annotations

from pathlib import Path

from simcse_kit.data.remote import is_remote
from simcse_kit.errors import DataError
from simcse_kit.evaluation.embed import Encoder, embed
from simcse_kit.evaluation.geometry import alignment_uniformity
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.pairs_file import load_pairs_file
from simcse_kit.evaluation.tasks.sts import find_task, load_task
from simcse_kit.metrics.correlation import spearman

__all__ = ["DevSet"]


class DevSet:
    """Graded pairs to score an encoder on during training, loaded once before it starts.

    Args:
        pairs: at least 3 graded pairs.
    """

    def __init__(self, pairs: PairSet):
        self.pairs = pairs

    @property
    def name(self) -> str:
        """Name of the set: ``STSB-dev``, or the stem of the file."""
        return self.pairs.name

    @classmethod
    def load(cls, path: str | Path, data: str | Path | None = None) -> DevSet:
        """Load and check a dev set.

        Args:
            path: a folder in the SentEval layout, of which STS-B dev (1,500 pairs) is used; a file
                of graded pairs, of which the rows of split "dev" are used if it has a column
                ``split``; or a task name such as ``STSB-dev``.
            data: folder in the SentEval layout for a task name; without it the task is downloaded
                from the Hub.

        Raises:
            ConfigError: the task name is unknown.
            DataError: the data is missing or wrong, or every encoder would have the same score.
        """
        pairs = _opened(Path(path), str(path), data)
        _check_can_choose(pairs, path)
        return cls(pairs)

    def score(self, encoder: Encoder) -> dict[str, float]:
        """Score an encoder with one call of ``encode``.

        Returns:
            ``spearman`` (x100, the score to select by; NaN if undefined), ``alignment`` (NaN
            without positives) and ``uniformity``.

        Raises:
            ModelError: ``encode`` did not return (n, d) finite, non-zero vectors.
        """
        vectors = embed(encoder, self.pairs.sentences())
        alignment, uniformity = alignment_uniformity(vectors, self.pairs)
        return {
            "spearman": spearman(self.pairs.cosines(vectors), self.pairs.gold),
            "alignment": alignment,
            "uniformity": uniformity,
        }


def _opened(place: Path, name: str, data: str | Path | None) -> PairSet:
    if place.is_dir():
        return concatenate(load_task("STSB-dev", place), "STSB-dev")
    if is_remote(name):
        return load_pairs_file(name, split="dev", if_present=True)
    if place.is_file():
        return load_pairs_file(place, split="dev", if_present=True)
    if place.suffix or len(place.parts) > 1:
        raise DataError(
            f"dev set {name!r} does not exist; give a file of graded pairs, or a folder in the "
            "SentEval layout"
        )
    task = find_task(name).name
    return concatenate(load_task(task, data), task)


def _check_can_choose(pairs: PairSet, path: str | Path) -> None:
    """Refuse pairs for which the rank correlation of every encoder is undefined.

    Raises:
        DataError: all grades, or all cosines, are equal.
    """
    remedy = "give pairs that differ in grade and in text, or omit --dev to hold out rows"
    grades = set(pairs.gold.tolist())
    if len(grades) < 2:
        shown = f"all {len(pairs)} pairs have the grade {min(grades):g}" if grades else "no pair"
        raise DataError(f"cannot choose a checkpoint: {shown}; {remedy}", file=path)
    # The cosine of equal sentences is 1; a pair and its reverse have the same cosine.
    sides = zip(pairs.sentences1, pairs.sentences2, strict=True)
    different = {frozenset(pair) if pair[0] != pair[1] else None for pair in sides}
    if len(different) < 2:
        what = "have two equal sentences" if None in different else "are the same pair"
        raise DataError(
            f"cannot choose a checkpoint: all {len(pairs)} pairs {what}, so every encoder gives "
            f"them the same cosine; {remedy}",
            file=path,
        )
