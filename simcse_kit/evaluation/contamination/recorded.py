"""What the training text of a model that this kit trained holds of evaluation sets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from simcse_kit.data.files import find_files
from simcse_kit.errors import SimcseError
from simcse_kit.evaluation.contamination.check import LeakReport, check_leaks
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.run_records import read_training_files

__all__ = ["recorded_leaks"]

logger = logging.getLogger(__name__)


def recorded_leaks(folder: str | Path, sets: Mapping[str, Sequence[PairSet]]) -> LeakReport | None:
    """Look for the sentences of ``sets`` in the files that the model's ``run.toml`` names.

    The record can name any file on this machine; look only where its author is trusted.

    Matches are exact, but for case, punctuation and spacing; `simcse data check-leak` finds near
    ones too. None where the folder has no such record, or its files cannot be read, which the log
    says.

    Args:
        folder: of the model.
        sets: evaluation set -> its graded pairs.
    """
    folder = Path(folder)
    try:
        files, columns = read_training_files(folder)
        return check_leaks(find_files(files), sets, threshold=None, columns=columns)
    except FileNotFoundError:
        return None
    except SimcseError as error:
        logger.warning("%s: the training text is not searched for leaks: %s", folder, error)
    return None
