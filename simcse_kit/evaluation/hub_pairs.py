"""Graded pairs from the Hugging Face Hub."""

from __future__ import annotations

import math

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.tasks.sts_files import SENTEVAL_REMEDY, tidy

__all__ = ["fetch"]

COLUMNS = ("sentence1", "sentence2", "score")


def fetch(repository: str, split: str, name: str, scale: tuple[float, float]) -> PairSet:
    """Download (or find in the local cache) one split with columns sentence1, sentence2, score.

    Args:
        repository: dataset on the Hub.
        split: its split.
        name: name of the set that is returned.
        scale: lowest and highest score.

    Raises:
        DataError: it cannot be fetched, lacks a column, or holds a bad score or blank sentence.
    """
    try:
        # imported here: it takes a second, and most evaluations read a folder
        from datasets import load_dataset

        table = load_dataset(repository, split=split)
    except Exception as error:  # the client raises a dozen unrelated types for "no network"
        reason = (str(error).strip().split("\n")[0] or "no reason given").rstrip(".")
        raise DataError(
            f"cannot fetch {repository} ({split}) from the Hub, is there a network? "
            f"({type(error).__name__}: {reason}); without one {SENTEVAL_REMEDY}"
        ) from error
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
