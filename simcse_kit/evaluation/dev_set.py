"""The dev set that picks the best checkpoint: loaded once before training, scored many times."""

from __future__ import annotations

from pathlib import Path

from simcse_kit.errors import DataError
from simcse_kit.evaluation.embed import Encoder, embed
from simcse_kit.evaluation.geometry import alignment_uniformity
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.pairs_file import load_pairs_file
from simcse_kit.evaluation.tasks.sts import find_task, load_task
from simcse_kit.metrics.correlation import spearman

__all__ = ["DevSet"]


class DevSet:
    """Graded pairs to score an encoder on during training.

    Args:
        pairs: at least 3 graded pairs.
    """

    def __init__(self, pairs: PairSet):
        self.pairs = pairs

    @property
    def name(self) -> str:
        """``STSB-dev``, or the file's stem."""
        return self.pairs.name

    @classmethod
    def load(cls, path: str | Path, data: str | Path | None = None) -> DevSet:
        """Open a dev set; everything wrong with it is found here, before training starts.

        Args:
            path: a folder in the SentEval layout (STS-B dev, 1,500 pairs, is taken), a file of
                graded pairs (the rows of split "dev" where it has a column ``split``, else all),
                or a task name such as ``STSB-dev``.
            data: where a task name is looked up, in the SentEval layout; the Hub without it.

        Raises:
            ConfigError: unknown task name.
            DataError: the data is missing or wrong, or every encoder would have the same score.
        """
        pairs = _opened(Path(path), str(path), data)
        _check_can_choose(pairs, path)
        return cls(pairs)

    def score(self, encoder: Encoder) -> dict[str, float]:
        """Score an encoder: one ``encode`` call over the distinct sentences.

        Returns:
            ``spearman`` (x100, the figure to select by; NaN where undefined), ``alignment`` (NaN
            without positives) and ``uniformity``.

        Raises:
            ModelError: ``encode`` gave something other than (n, d) finite, non-zero vectors.
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
    """Refuse pairs for which a rank correlation is undefined whatever the encoder.

    Raises:
        DataError: the grades are all one, or the cosines must be.
    """
    remedy = "give pairs that differ in grade and in text, or leave --dev out to hold out rows"
    grades = set(pairs.gold.tolist())
    if len(grades) < 2:
        shown = f"all {len(pairs)} pairs have the grade {min(grades):g}" if grades else "no pair"
        raise DataError(f"cannot choose a checkpoint: {shown}; {remedy}", file=path)
    # Equal sentences have a cosine of 1; a pair has that of its reverse.
    sides = zip(pairs.sentences1, pairs.sentences2, strict=True)
    different = {frozenset(pair) if pair[0] != pair[1] else None for pair in sides}
    if len(different) < 2:
        what = "have two equal sentences" if None in different else "are one and the same"
        raise DataError(
            f"cannot choose a checkpoint: all {len(pairs)} pairs {what}, so that every encoder "
            f"gives them one cosine; {remedy}",
            file=path,
        )
