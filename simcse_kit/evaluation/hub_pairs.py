"""Graded pairs from the Hugging Face Hub."""

from __future__ import annotations

import math

import numpy as np

from simcse_kit.data.hub_data import open_split
from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.tasks.files import tidy
from simcse_kit.evaluation.tasks.sts_files import SENTEVAL_REMEDY

__all__ = ["fetch"]

COLUMNS = ("sentence1", "sentence2", "score")


def fetch(repository: str, split: str, name: str, scale: tuple[float, float]) -> PairSet:
    """Load one split of a dataset from the Hub or its local cache.

    Args:
        repository: name of a dataset with the columns sentence1, sentence2 and score.
        split: name of the split.
        name: name of the returned set.
        scale: lowest and highest score.

    Raises:
        DataError: the dataset cannot be downloaded, lacks a column, or has a bad row.
    """
    table = open_split(repository, split, remedy=SENTEVAL_REMEDY)
    where = f"Hub dataset {repository} ({split})"
    absent = [column for column in COLUMNS if column not in table.column_names]
    if absent:
        raise DataError(
            f"{where} has no column {', '.join(absent)} (it has {', '.join(table.column_names)}); "
            f"{SENTEVAL_REMEDY}"
        )
    first, second = ([tidy(text or "") for text in table[column]] for column in COLUMNS[:2])
    gold = np.array([math.nan if x is None else float(x) for x in table["score"]], dtype=np.float64)
    low, high = scale
    for row, (a, b, score) in enumerate(zip(first, second, gold, strict=True)):
        if not a or not b or not low <= score <= high:
            raise DataError(
                f"{where}: row {row} has a blank sentence or a score outside {low:g} to {high:g}; "
                f"{SENTEVAL_REMEDY}"
            )
    return PairSet(name, first, second, gold, scale)
