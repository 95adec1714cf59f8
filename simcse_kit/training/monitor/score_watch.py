"""Early stopping, and a warning while the score of a run falls."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerState

from simcse_kit.training.selection import SPEARMAN, improves

__all__ = ["ScoreWatch", "has_fallen"]

logger = logging.getLogger(__name__)

# One or two low evaluations are common in a run that gains in the end.
_IN_A_ROW = 3
# Differences between neighbouring evaluations of a good run: points of Spearman (x100), and the
# share of a loss.
_SPEARMAN_NOISE = 0.5
_LOSS_NOISE = 0.01


def has_fallen(name: str, scores: Sequence[float]) -> bool:
    """Whether the newest of three scores in a row is below the best one by more than noise.

    True once for each fall: a longer fall gives True only at its third score. Noise is 0.5 points
    of Spearman correlation (x100), or 1 % of a loss, and of a loss below 1 it is 0.01.

    Args:
        name: the metric, such as ``dev_spearman``.
        scores: the scores of all evaluations, oldest first.

    Examples:
        >>> has_fallen("dev_spearman", [56.8, 56.0, 55.0, 54.0])
        True
        >>> has_fallen("dev_spearman", [56.8, 56.0, 55.0, 54.0, 53.0])
        False
        >>> has_fallen("dev_spearman", [56.8, 56.7, 56.6, 56.5])
        False
    """
    best: float | None = None
    low, warned = 0, False
    fallen = False
    for score in scores:
        fallen = False
        if improves(name, score, best):
            best, low, warned = score, 0, False
            continue
        assert best is not None
        noise = _SPEARMAN_NOISE if name == SPEARMAN else _LOSS_NOISE * max(1, abs(best))
        low = low + 1 if abs(score - best) > noise else 0
        if low >= _IN_A_ROW and not warned:
            fallen = warned = True
    return fallen


class ScoreWatch(TrainerCallback):
    """Warns while the score falls, and ends a run whose score has not improved for long.

    All decisions follow from the log of the trainer, which checkpoints contain, so a resumed run
    decides as an uninterrupted one does.

    Args:
        name: the metric that chooses the checkpoint.
        every: steps between evaluations.
        patience: evaluations in a row without a better score after which training stops; None:
            it never does.
        start_counts: whether the score before the first step is compared with the others.
    """

    def __init__(self, name: str, every: int, patience: int | None, *, start_counts: bool):
        self._name = name
        self._every = every
        self._patience = patience
        self._start_counts = start_counts

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Check the newest score."""
        scores = self._scores(state.log_history)
        newest = scores.get(state.global_step)
        if newest is not None and has_fallen(self._name, list(scores.values())):
            step = self._best_step(scores)
            logger.warning(
                "step %d: %s is %.4g, and has been worse than %.4g, which it was at step %d, for "
                "%d evaluations; training may be making the encoder worse: lower "
                "training.learning_rate, or end such a run early with --patience; the best state "
                "so far is kept",
                state.global_step,
                self._name,
                newest,
                scores[step],
                step,
                _IN_A_ROW,
            )
        if self.is_exhausted(state.log_history, state.global_step):
            control.should_training_stop = True

    def is_exhausted(self, log: Sequence[Mapping[str, Any]], step: int) -> bool:
        """Whether the patience has run out at a step.

        Args:
            log: the log of the trainer up to the step.
            step: number of optimizer steps so far.
        """
        if self._patience is None:
            return False
        waited = (step - self._best_step(self._scores(log))) // self._every
        return waited >= self._patience

    def stopped_early(self, state: TrainerState) -> str | None:
        """Describe why a finished run has ended before its last step; None if it has not."""
        if state.global_step >= state.max_steps:
            return None
        if not self.is_exhausted(state.log_history, state.global_step):
            return None
        count = "1 evaluation" if self._patience == 1 else f"{self._patience} evaluations"
        return f"stopped after {count} without a better score"

    def _scores(self, log: Sequence[Mapping[str, Any]]) -> dict[int, float]:
        """Read the scores by step; undefined ones are left out."""
        key = f"eval_{self._name}"
        return {
            int(row["step"]): row[key]
            for row in log
            if key in row and (self._start_counts or row["step"])
        }

    def _best_step(self, scores: Mapping[int, float]) -> int:
        best_step, best = 0, None
        for step, score in scores.items():
            if improves(self._name, score, best):
                best_step, best = step, score
        return best_step
