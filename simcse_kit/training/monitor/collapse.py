"""Detection, diagnosis and handling of collapsing embeddings during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainerCallback, TrainerState

from simcse_kit.metrics.collapse import Spread, collapse_of
from simcse_kit.training.callbacks import history_rows
from simcse_kit.training.monitor.geometry_probe import PREFIX, PROJECTION

__all__ = ["CollapseMonitor", "Facts", "Policy", "collapse_in", "diagnose"]

logger = logging.getLogger(__name__)

Policy = Literal["warn", "stop", "rollback"]
MetricsRow = Mapping[str, float]

# A single measurement may be low by chance.
_IN_A_ROW = 2
_ROLLBACKS = 2
_FEW_NEGATIVES = 3
_MANY_DUPLICATES = 0.3
_TEMPERATURES = (0.005, 0.5)
# Above this share of ln(candidates) the encoder has learned nothing.
_NOTHING_LEARNED = 0.98
# What is measured, with the prefix of its numbers.
_PARTS = {"": PREFIX, " of the projections": PREFIX + PROJECTION}


@dataclass(frozen=True)
class Facts:
    """Properties of a run that can explain a collapse.

    Attributes:
        views_are_equal: whether both views of a sentence are equal, because there is no dropout.
        negatives: negatives of an anchor in its batch.
        needs_negatives: whether the method compares with negatives.
        temperature: temperature of the loss; None for a loss without temperature.
        learning_rate: peak of the schedule.
        duplicates: share of the rows whose anchor occurred in an earlier row.
        remedy: what to try with this method in particular, as an imperative; None for nothing.
    """

    views_are_equal: bool
    negatives: int
    needs_negatives: bool
    temperature: float | None
    learning_rate: float
    duplicates: float
    remedy: str | None = None


def collapse_in(rows: Sequence[MetricsRow]) -> str | None:
    """Describe the collapse that the two newest measurements agree on; None if there is none.

    Embeddings and, if they are measured, projections are compared with the first measurement.

    Args:
        rows: rows of metrics.jsonl.

    Examples:
        >>> good = {"trace_spread": 0.6, "trace_mean_cosine": 0.5, "trace_effective_rank": 20.0}
        >>> bad = {"trace_spread": 0.0, "trace_mean_cosine": 1.0, "trace_effective_rank": 1.0}
        >>> collapse_in([good, bad, bad])[:40]
        'complete collapse: spread 0.000, mean co'
        >>> collapse_in([good, bad, good]) is None
        True
    """
    for part, prefix in _PARTS.items():
        spreads = _spreads(rows, prefix)
        if len(spreads) <= _IN_A_ROW:
            continue
        kinds = [collapse_of(now, spreads[0]) for now in spreads[-_IN_A_ROW:]]
        if None not in kinds:
            return f"{kinds[-1]} collapse{part}: {spreads[-1]} ({spreads[0]} at the start)"
    return None


def diagnose(facts: Facts, rows: Sequence[MetricsRow]) -> str:
    """Return the most likely cause of a collapse, the evidence and a remedy.

    Args:
        facts: properties of the run.
        rows: rows of metrics.jsonl.
    """
    if facts.views_are_equal:
        return (
            "every dropout is 0, so both views of a sentence are equal; use "
            "--set method.dropout=0.1, or --augment"
        )
    if facts.needs_negatives and facts.negatives <= _FEW_NEGATIVES:
        return f"an anchor has {facts.negatives} negatives; use a larger --batch-size"
    if facts.duplicates >= _MANY_DUPLICATES:
        return (
            f"{100 * facts.duplicates:.0f} % of the rows repeat an anchor, and repeated texts are "
            "not used as negatives of each other; use simcse data dedupe"
        )
    low, high = _TEMPERATURES
    if facts.temperature is not None and not low <= facts.temperature <= high:
        return (
            f"the temperature is {facts.temperature:g}; set method.temperature to 0.05, or to "
            "another value between 0.01 and 0.2"
        )
    if not facts.needs_negatives:
        remedy = f"{facts.remedy}, " if facts.remedy else ""
        return (
            "the method has no negatives, and large steps make it collapse; lower "
            f"training.learning_rate = {facts.learning_rate:g} to a fifth, use a larger "
            f"--batch-size, {remedy}or use a method with negatives, such as simcse"
        )
    return (
        f"{_nothing_learned(rows)}the learning rate {facts.learning_rate:g} may be too large; try "
        "a fifth of it, or training.warmup_ratio = 0.1"
    )


class CollapseMonitor(TrainerCallback):
    """Checks every measurement of the geometry probe, and acts on a collapse.

    Args:
        policy: ``warn`` logs the first collapse; ``stop`` also ends the training; ``rollback``
            restores the weights of the last good checkpoint with half the learning rate, at most
            twice, and then ends the training.
        facts: returns the properties of the run.
        go_back: restores the newest checkpoint of at most this step, with half the learning rate,
            and returns its step, or None if there is no such checkpoint.

    Attributes:
        finding: description of the last collapse; None if there was none.
        stopped: whether the monitor ended the training.
    """

    def __init__(
        self, policy: Policy, facts: Callable[[], Facts], go_back: Callable[[int], int | None]
    ):
        self._policy = policy
        self._facts = facts
        self._go_back = go_back
        self.finding: str | None = None
        self.stopped = False

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Check a new measurement."""
        if f"{PREFIX}spread" not in (logs or {}):
            return
        rows = history_rows(state.log_history)
        rollbacks = [row for row in rows if "rolled_back_to" in row]
        # Measurements before a rollback no longer count, except the first one.
        since = int(rollbacks[-1]["step"]) if rollbacks else -1
        recent = [row for row in rows if row["step"] > since or row["step"] == 0]
        found = collapse_in(recent)
        if found is None or (self._policy == "warn" and self.finding is not None):
            return
        self.finding = f"{found}; {diagnose(self._facts(), rows)}"
        if self._policy == "rollback" and len(rollbacks) < _ROLLBACKS:
            # The checkpoint of the step of a rollback was written after it.
            step = self._go_back(max(_last_healthy(recent), since))
            if step is not None:
                logger.warning(
                    "step %d: %s; went back to the weights of step %d, with half the learning rate",
                    state.global_step,
                    self.finding,
                    step,
                )
                state.log_history.append({"step": state.global_step, "rolled_back_to": step})
                return
        logger.warning("step %d: %s", state.global_step, self.finding)
        if self._policy != "warn":
            self.stopped = control.should_training_stop = True


def _spreads(rows: Sequence[MetricsRow], prefix: str) -> list[Spread]:
    names = ("spread", "mean_cosine", "effective_rank")
    measured = [row for row in rows if f"{prefix}spread" in row]
    return [Spread(*(row[prefix + name] for name in names)) for row in measured]


def _last_healthy(rows: Sequence[MetricsRow]) -> int:
    """Return the step of the last measurement without a collapse."""
    measured = [row for row in rows if f"{PREFIX}spread" in row]

    def is_healthy(row: MetricsRow) -> bool:
        return all(
            collapse_of(now, _spreads(measured, prefix)[0]) is None
            for prefix in _PARTS.values()
            for now in _spreads([row], prefix)
        )

    return int([row for row in measured if is_healthy(row)][-1]["step"])


def _nothing_learned(rows: Sequence[MetricsRow]) -> str:
    """Return a clause that says that the loss is that of equal vectors; else an empty string."""
    losses = [row for row in rows if "contrastive_loss" in row and "ln_batch" in row]
    if not losses or losses[-1]["contrastive_loss"] < _NOTHING_LEARNED * losses[-1]["ln_batch"]:
        return ""
    last = losses[-1]
    return (
        f"the loss is {last['contrastive_loss']:.3f}, and {last['ln_batch']:.3f} is that of an "
        "encoder that gives every sentence the same vector; "
    )
