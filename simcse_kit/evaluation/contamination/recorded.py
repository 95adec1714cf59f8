"""Contamination check of the training files that a model's record names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from simcse_kit.data.find import find_files
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.errors import SimcseError
from simcse_kit.evaluation.contamination.check import LeakReport, check_leaks
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.run_records import read_training_files

__all__ = ["recorded_leaks"]

logger = logging.getLogger(__name__)


def recorded_leaks(folder: str | Path, sets: Mapping[str, Sequence[PairSet]]) -> LeakReport | None:
    """Search the training files that a model's ``run.toml`` names for evaluation sentences.

    The record can name any file on this machine and any address, which is then requested; use this
    only for trusted models. Matches are exact up to case, punctuation and spacing; `simcse data
    check-leak` also finds near matches.

    Args:
        folder: folder of the model.
        sets: graded pairs by name of the evaluation set.

    Returns:
        The result; None if there is no record, or if the files cannot be read, which is logged.
    """
    folder = Path(folder)
    try:
        files, columns = read_training_files(folder)
        return check_leaks(
            find_files(files), sets, threshold=None, options=ReadOptions(columns=columns)
        )
    except FileNotFoundError:
        return None
    except SimcseError as error:
        logger.warning("%s: the training text is not searched for leaks: %s", folder, error)
    return None
