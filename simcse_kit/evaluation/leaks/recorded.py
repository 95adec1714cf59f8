"""What the training text of a model that this kit trained holds of evaluation sets."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from simcse_kit.errors import SimcseError
from simcse_kit.evaluation.leaks.check import LeakReport, check_leaks
from simcse_kit.evaluation.pairset import PairSet

__all__ = ["recorded_leaks"]

logger = logging.getLogger(__name__)

_RECORD = "run.toml"


def recorded_leaks(model: str, sets: Mapping[str, Sequence[PairSet]]) -> LeakReport | None:
    """Look for the sentences of ``sets`` in the files that the model's ``run.toml`` names.

    Matches are exact, but for case, punctuation and spacing; `simcse data check-leak` finds near
    ones too. None where the folder has no such record, or its files are no longer there, which a
    log line tells.
    """
    record = Path(model) / _RECORD
    try:
        data = tomllib.loads(record.read_text("utf-8"))["data"]
        return check_leaks(data["train"], sets, threshold=None, columns=data.get("columns"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
    except SimcseError as error:
        reason = str(error)
    logger.info("%s: its training text is not looked at for leaks: %s", record, reason)
    return None
