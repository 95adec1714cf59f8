"""Result of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import percent
from simcse_kit.training.build import Build
from simcse_kit.training.callbacks import history_rows
from simcse_kit.training.device_limits import peak_bytes
from simcse_kit.training.selection import LOSS, UNDEFINED, improves
from simcse_kit.training.state.checkpoints import step_of
from simcse_kit.utils.environment import environment

__all__ = ["TrainResult", "gigabytes", "result_of", "shown"]


@dataclass(frozen=True)
class TrainResult:
    """What a run resulted in.

    Attributes:
        output: folder of the encoder; ``SentenceEncoder.load`` opens it.
        steps: number of optimizer steps in total.
        sentences: number of sentences that this process trained on, absent hard negatives
            included; a resumed run does not count those of the run before it.
        seconds: wall time of the optimisation in this process.
        peak_memory: largest number of bytes of the tensors on the GPU, or of this process since
            its start if it trained on a CPU; None if the system does not report it.
        score_name: ``dev_spearman`` (x100, higher is better), ``dev_loss`` (lower is better), or
            None if nothing was evaluated.
        start_score: the score before the first step; None if it was undefined.
        best_score: the best score of a checkpoint after the start; None if it was always undefined.
        best_step: the step of that checkpoint.
        improved: whether that checkpoint is better than the start and was kept; False if the
            encoder in ``output`` is the start; None if the two cannot be compared, because nothing
            was evaluated, because the loss of held-out rows cannot choose, or because no score was
            defined: then the best checkpoint, or else the last state, was kept.
        stopped_early: a sentence about a run that ``training.patience`` ended; None otherwise.
        truncated: share of the sentences that were cut to ``data.max_length``; None if it was not
            counted, because worker processes read the data or no step was made.
        unknown: share of the tokens that are not in the model's vocabulary; None if it was not
            counted, as for ``truncated``.
        skipped: number of bad rows of the input by reason.
        collapse: the collapse of the embeddings that was found; None if there was none.
        history: the rows of metrics.jsonl.
        made_with: versions, processor, threads, seed, device, precision, fingerprints of training
            text and start model, commit of the current folder.
    """

    output: Path
    steps: int
    sentences: int
    seconds: float
    peak_memory: int | None
    score_name: str | None
    start_score: float | None
    best_score: float | None
    best_step: int | None
    improved: bool | None
    stopped_early: str | None
    truncated: float | None
    unknown: float | None
    skipped: dict[str, int]
    collapse: str | None
    history: list[dict[str, float]]
    made_with: dict[str, str]

    @cached_property
    def encoder(self) -> SentenceEncoder:
        """The trained encoder, loaded from ``output`` at the first access."""
        return SentenceEncoder.load(self.output)

    @property
    def undefined(self) -> str | None:
        """A sentence about a score that was undefined at every checkpoint; None otherwise."""
        if self.score_name is None or self.best_score is not None:
            return None
        cause = UNDEFINED.get(self.score_name, "it was not measured")
        return f"{self.score_name} was undefined at every checkpoint, because {cause}"

    @property
    def no_gain(self) -> str | None:
        """A sentence about a run whose start was kept, with both scores; None otherwise."""
        if self.improved is not False:
            return None
        best = (
            "always undefined after"
            if self.best_score is None
            else f"{self.best_score:.4g} at best"
        )
        return f"training did not help: {self.score_name} {shown(self.start_score)} before, {best}"

    @property
    def sentences_per_second(self) -> float:
        """Training speed, evaluations and checkpoints included."""
        return self.sentences / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the result without its history, for ``simcse train --json``."""
        values = asdict(self)
        del values["history"]
        values["output"] = str(self.output)
        values["seconds"] = round(self.seconds, 2)
        values["sentences_per_second"] = round(self.sentences_per_second, 1)
        values["undefined"] = self.undefined
        return {name: values[name] for name in _JSON_KEYS}

    def summary(self) -> list[str]:
        """Describe the result for the terminal, one line for each fact."""
        lines = [
            f"{self.steps:,} steps in {self.seconds:.0f} s "
            f"({self.sentences_per_second:.0f} sentences/s)"
        ]
        if self.peak_memory is not None:
            lines.append(f"peak memory {gigabytes(self.peak_memory)}")
        if self.stopped_early is not None:
            lines.append(self.stopped_early)
        if self.no_gain is not None:
            lines.append(f"{self.no_gain}; the encoder in {self.output} is the start")
        elif self.best_score is not None:
            lines.append(
                f"{self.score_name} {self.best_score:.4g} at step {self.best_step} "
                f"({shown(self.start_score)} before)"
            )
        elif self.undefined is not None:
            lines.append(f"{self.undefined}; the last state was kept")
        if self.collapse is not None:
            lines.append(f"collapse: {self.collapse}")
        if self.truncated:
            lines.append(f"{100 * self.truncated:.1f} % of the sentences were cut")
        if self.unknown:
            lines.append(f"{percent(self.unknown)} of the tokens were unknown to the vocabulary")
        lines += [f"skipped {count} rows: {reason}" for reason, count in self.skipped.items()]
        return [*lines, f"encoder: {self.output}", f"curves:  {self.output / 'training.html'}"]


_JSON_KEYS = (
    "output steps sentences seconds sentences_per_second peak_memory score_name start_score "
    "best_score best_step improved stopped_early undefined truncated unknown skipped "
    "collapse made_with"
).split()


def result_of(built: Build, *, seconds: float, first_step: int, processes: int) -> TrainResult:
    """Collect the result of a run that was trained to its end.

    Args:
        built: the run.
        seconds: wall time of the optimisation.
        first_step: step of the checkpoint that the optimisation continued from; 0 for a new run.
        processes: number of processes that shared each batch.
    """
    plan, state, name = built.plan, built.trainer.state, built.plan.score_name
    training = plan.config.training
    history = history_rows(state.log_history)
    best = state.best_model_checkpoint
    start_score = next((row[name] for row in history if name in row and not row["step"]), None)
    best_score = None if state.best_metric is None else float(state.best_metric)
    return TrainResult(
        output=plan.output,
        steps=state.global_step,
        sentences=(state.global_step - first_step) * built.sentences_per_step,
        seconds=seconds,
        peak_memory=peak_bytes(plan.arguments.device),
        score_name=name,
        start_score=start_score,
        best_score=best_score,
        best_step=None if best is None else step_of(best),
        improved=_improved(name, start_score, best_score) if plan.start_counts else None,
        stopped_early=None if built.watch is None else built.watch.stopped_early(state),
        truncated=built.counts.truncated,
        unknown=built.counts.unknown_share,
        skipped=dict(plan.corpus.report.skipped),
        collapse=None if built.monitor is None else built.monitor.finding,
        history=history,
        made_with=environment()
        | {
            "seed": str(training.seed),
            "deterministic": str(training.deterministic).lower(),
            "device": str(plan.arguments.device),
            "precision": "fp16" if plan.arguments.fp16 else training.precision,
            "processes": str(processes),
            "training_text": plan.corpus.fingerprint,
            "start_model": built.start.fingerprint,
        },
    )


def _improved(name: str | None, start: float | None, best: float | None) -> bool | None:
    """Whether the best checkpoint is better than the start; None if no score is meaningful."""
    if name is None or start is best is None:
        return None
    if name == LOSS and start == best == 0:  # the held-out rows have no negatives
        return None
    return best is not None and improves(name, best, start)


def gigabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e9:.2g} GB"


def shown(score: float | None) -> str:
    """Format a score, which may be undefined."""
    return "undefined" if score is None else f"{score:.4g}"
