"""What to do where the embeddings collapse in training, and what it comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainerCallback, TrainerState

from simcse_kit.metrics.collapse import Spread, collapse_of
from simcse_kit.training.callbacks import history_rows
from simcse_kit.training.monitor.geometry_probe import PREFIX

__all__ = ["Doctor", "Facts", "Policy", "collapse_in", "diagnose"]

logger = logging.getLogger(__name__)

Policy = Literal["warn", "stop", "rollback"]

# One measurement may be odd by chance.
_IN_A_ROW = 2
_ROLLBACKS = 2
# Fewer negatives than this leave the sphere hardly any reason to be filled.
_FEW_NEGATIVES = 3
_MANY_DUPLICATES = 0.3
_TEMPERATURES = (0.005, 0.5)
# Of the loss of an encoder that tells nothing apart.
_NOTHING_LEARNT = 0.98


@dataclass(frozen=True)
class Facts:
    """What is known of a run, to tell the cause of a collapse by.

    Attributes:
        views_are_equal: there is no dropout, and nothing else that tells two views apart.
        negatives: of an anchor, in its batch.
        needs_negatives: whether the method has any.
        temperature: of the loss; None where it has none.
        learning_rate: the peak.
        duplicates: share of rows whose anchor occurred before, of a sample.
    """

    views_are_equal: bool
    negatives: int
    needs_negatives: bool
    temperature: float | None
    learning_rate: float
    duplicates: float


def collapse_in(rows: Sequence[Mapping[str, float]]) -> str | None:
    """The collapse that the newest measurements of a history agree on, in words; or None.

    Compared is with the first measurement of the history.

    Args:
        rows: of metrics.jsonl.
    """
    traces = [row for row in rows if f"{PREFIX}spread" in row]
    if len(traces) <= _IN_A_ROW:
        return None
    start, *_ = spreads = [_spread(row) for row in traces]
    kinds = [collapse_of(now, start) for now in spreads[-_IN_A_ROW:]]
    if None in kinds:
        return None
    return f"{kinds[-1]} collapse: {spreads[-1]} ({start} at the start)"


def diagnose(facts: Facts, rows: Sequence[Mapping[str, float]]) -> str:
    """The likeliest cause of a collapse, with the evidence and what to do about it.

    Args:
        facts: of the run.
        rows: of metrics.jsonl.
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
            "no negatives of each other; use simcse data dedupe"
        )
    low, high = _TEMPERATURES
    if facts.temperature is not None and not low <= facts.temperature <= high:
        return (
            f"the temperature is {facts.temperature:g}; set method.temperature to 0.05, or to "
            "something between 0.01 and 0.2"
        )
    if not facts.needs_negatives:
        return (
            "the method has no negatives, and nothing but a moderate step keeps it apart; lower "
            f"training.learning_rate = {facts.learning_rate:g} to a fifth, or enlarge the batch"
        )
    evidence = _at_nothing(rows)
    return (
        f"{evidence}the learning rate {facts.learning_rate:g} may be too large; try a fifth of it, "
        "or training.warmup_ratio = 0.1"
    )


class Doctor(TrainerCallback):
    """Watch the trace; on a collapse say why, and stop or go back if asked to.

    Args:
        policy: ``warn`` once; ``stop`` the training; or ``rollback``: go back to the weights of the
            last good checkpoint with half the learning rate, at most twice, then stop.
        facts: gives those of the run.
        go_back: puts the weights of the newest checkpoint of at most so many steps back, with half
            the learning rate; gives its step, or None where there is none.

    Attributes:
        finding: what was found last; None while all is well.
        stopped: whether the training was ended because of it.
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
        """Look at a new measurement."""
        if f"{PREFIX}spread" not in (logs or {}):
            return
        rows = history_rows(state.log_history)
        returns = [row for row in rows if "rolled_back_to" in row]
        # What was measured before a return says nothing of what came after, but for the start.
        since = int(returns[-1]["step"]) if returns else -1
        judged = [row for row in rows if row["step"] > since or row["step"] == 0]
        found = collapse_in(judged)
        if found is None or (self._policy == "warn" and self.finding is not None):
            return
        self.finding = f"{found}; {diagnose(self._facts(), rows)}"
        if self._policy == "rollback" and len(returns) < _ROLLBACKS:
            # A checkpoint of the step of a return was written after it.
            step = self._go_back(max(_last_healthy(judged), since))
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


def _last_healthy(rows: Sequence[Mapping[str, float]]) -> int:
    """The step of the last measurement that showed no collapse."""
    traces = [row for row in rows if f"{PREFIX}spread" in row]
    start = _spread(traces[0])
    healthy = [row for row in traces if collapse_of(_spread(row), start) is None]
    return int(healthy[-1]["step"])


def _spread(row: Mapping[str, float]) -> Spread:
    return Spread(*(row[PREFIX + name] for name in ("spread", "mean_cosine", "effective_rank")))


def _at_nothing(rows: Sequence[Mapping[str, float]]) -> str:
    """What the loss says: whether it is where it would be if nothing were told apart."""
    losses = [row for row in rows if "contrastive_loss" in row and "ln_batch" in row]
    if not losses or losses[-1]["contrastive_loss"] < _NOTHING_LEARNT * losses[-1]["ln_batch"]:
        return ""
    last = losses[-1]
    return (
        f"the loss is {last['contrastive_loss']:.3f}, and {last['ln_batch']:.3f} is that of an "
        "encoder that tells nothing apart; "
    )
