"""Result of a run, and the files that it writes next to the encoder."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.save import default_card
from simcse_kit.encoder.token_counts import percent
from simcse_kit.evaluation.report.page import write_training_report
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.teachers import TeacherConfig
from simcse_kit.training.build import Build
from simcse_kit.training.callbacks import history_rows
from simcse_kit.training.device_limits import peak_bytes
from simcse_kit.training.selection import LOSS, SPEARMAN, UNDEFINED
from simcse_kit.training.state.checkpoints import step_of
from simcse_kit.training.state.output_dir import RESULT
from simcse_kit.utils.environment import environment
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.tables import escaped

__all__ = ["TrainResult", "result_of", "save_results"]

logger = logging.getLogger(__name__)


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
        best_score: the score of the checkpoint that was kept; None if it was always undefined.
        best_step: the step of that checkpoint.
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
            lines.append(f"peak memory {_gigabytes(self.peak_memory)}")
        if self.best_score is not None:
            lines.append(
                f"{self.score_name} {self.best_score:.4g} at step {self.best_step} "
                f"({_shown(self.start_score)} before)"
            )
        if self.undefined is not None:
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
    "best_score best_step undefined truncated unknown skipped collapse made_with"
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
    return TrainResult(
        output=plan.output,
        steps=state.global_step,
        sentences=(state.global_step - first_step) * built.sentences_per_step,
        seconds=seconds,
        peak_memory=peak_bytes(plan.arguments.device),
        score_name=name,
        start_score=next((row[name] for row in history if name in row and not row["step"]), None),
        best_score=None if state.best_metric is None else float(state.best_metric),
        best_step=None if best is None else step_of(best),
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
            "start_model": built.start_model,
        },
    )


def save_results(built: Build, result: TrainResult, *, report: bool = True) -> None:
    """Write the encoders with a model card, then the curves, and ``result.json`` last.

    Args:
        built: the run; its method holds the encoder in the state to keep.
        result: its result.
        report: whether to write the curves, training.html.

    Raises:
        ModelError: the encoder cannot be written.
        ConfigError: the report cannot be written.
    """
    _warn_if_not_better(result)
    folder, method = built.plan.folder, built.method
    summary = _summary(built, result)
    for name, encoder in method.companions().items():
        encoder.save(folder / name)
    method.encoder.save(folder, card=_card(method, summary))
    if report:
        title = f"Training of {built.plan.config.model.name}"
        write_training_report(result.history, folder, title=title, summary=summary)
    write_atomic(folder / RESULT, json.dumps(result.to_json(), indent=2) + "\n")


def _warn_if_not_better(result: TrainResult) -> None:
    if result.start_score is None or result.best_score is None:
        return
    if result.score_name == LOSS and result.start_score == result.best_score == 0:
        logger.warning(
            "dev_loss is 0 before and after training: the held-out rows have no negatives that "
            "differ from each other, so the loss is meaningless; give graded pairs with --dev"
        )
        return
    gain = result.best_score - result.start_score
    if (gain if result.score_name == SPEARMAN else -gain) <= 0:
        logger.warning(
            "training did not improve %s (%.4g before, %.4g at best); try another learning "
            "rate, more steps, or other data",
            result.score_name,
            result.start_score,
            result.best_score,
        )


def _summary(built: Build, result: TrainResult) -> dict[str, str]:
    """Describe the run for the model card and the page of curves."""
    plan, method = built.plan, built.method
    config, corpus, training = plan.config, plan.corpus, plan.config.training
    skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items())
    rows = {
        "Method": method.name if method.paper is None else f"{method.name}: {method.paper}",
        "Start": config.model.name,
        "Pooling": method.encoder.pooling,
        **_teachers(plan.options),
        "Data": f"{len(corpus):,} {corpus.kind}" + (f", skipped: {skipped}" if skipped else ""),
        "Batch": f"{training.batch_size} rows, {plan.contrast}",
        "Learning rate": f"{training.learning_rate:g}, {training.schedule}",
        "Steps": f"{result.steps:,} in {result.seconds:.0f} s "
        f"({result.sentences_per_second:.0f} sentences/s)",
        "Device": f"{_place(result.made_with)}, {result.made_with['precision']}",
        "Seed": str(training.seed),
    }
    if result.peak_memory is not None:
        rows["Peak memory"] = _gigabytes(result.peak_memory)
    if result.truncated is not None:
        rows["Sentences cut"] = (
            f"{100 * result.truncated:.1f} % longer than {config.data.max_length} tokens"
        )
    if result.unknown:
        rows["Unknown tokens"] = f"{percent(result.unknown)}, not in the vocabulary"
    if result.best_score is not None:
        dev = "held-out loss" if plan.dev is None else f"Spearman on {plan.dev.name}"
        rows["Best"] = (
            f"{dev} {result.best_score:.4g} at step {result.best_step}, "
            f"{_shown(result.start_score)} before"
        )
    elif result.undefined is not None:
        rows["Best"] = f"not known: {result.undefined}; the last state was kept"
    for name in method.companions():
        rows[f"Encoder {name}"] = f"in the subfolder {name}/, which opens like this folder"
    return rows


def _teachers(options: MethodConfig) -> dict[str, str]:
    return {"Teachers": ", ".join(options.teachers)} if isinstance(options, TeacherConfig) else {}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2g} GB"


def _place(made_with: dict[str, str]) -> str:
    device = made_with["device"]
    return made_with["gpu"] if device.startswith("cuda") else device.upper()


def _shown(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.4g}"


def _card(method: Method, summary: dict[str, str]) -> str:
    """Write the model card: how to use the encoder, how it was trained, what to cite."""
    facts = "\n".join(f"| {escaped(name)} | {escaped(value)} |" for name, value in summary.items())
    paper = method.paper
    source = (
        f"Method `{method.name}`"
        if paper is None
        else f"Method: *{paper.title}* ({paper.year}), <https://arxiv.org/abs/{paper.arxiv}>"
    )
    return f"""{default_card(method.encoder)}
## Training

| | |
|---|---|
{facts}

The whole configuration is in `run.toml`, the curves are in `training.html`.

{source}
"""
