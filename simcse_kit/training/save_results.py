"""The files that a finished run writes: the encoder with its card, the curves, the result."""

from __future__ import annotations

import json
import logging

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.save import RUN_FILES, default_card
from simcse_kit.encoder.token_counts import percent
from simcse_kit.evaluation.report.page import write_training_report
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.teachers import TeacherConfig
from simcse_kit.training.build import Build
from simcse_kit.training.result import TrainResult, gigabytes, shown
from simcse_kit.training.selection import LOSS
from simcse_kit.training.state.output_dir import RESULT
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.tables import escaped

__all__ = ["save_results"]

logger = logging.getLogger(__name__)

# Subfolder of the encoder with its adapter merged.
_MERGED = "merged"


def save_results(built: Build, result: TrainResult, *, report: bool = True) -> None:
    """Write the encoders with a model card, then the curves, and ``result.json`` last.

    If training did not help, the encoders are the one that it started from.

    Args:
        built: the run; its method holds the encoder of the best checkpoint.
        result: its result.
        report: whether to write the curves, training.html.

    Raises:
        ModelError: the encoder cannot be written, or the start has to be saved and its files have
            changed.
        ConfigError: the report cannot be written.
    """
    _warn_if_not_better(result)
    folder, method = built.plan.folder, built.method
    start = built.start.again() if result.improved is False else None
    encoder = start or method.encoder
    summary = _summary(built, result, encoder.pooling)
    for name, companion in method.companions().items():
        (start or companion).save(folder / name)
    card = _card(encoder, method, summary)
    encoder.save(folder, card=card)
    if built.plan.config.training.merge_adapter:
        SentenceEncoder.load(folder, device="cpu").save(folder / _MERGED, card=card)
    if report:
        title = f"Training of {built.plan.config.model.name}"
        write_training_report(result.history, folder, title=title, summary=summary)
    write_atomic(folder / RESULT, json.dumps(result.to_json(), indent=2) + "\n")


def _warn_if_not_better(result: TrainResult) -> None:
    if result.no_gain is not None:
        logger.warning(
            "%s; the encoder in %s is the start; try another learning rate, more steps, or other "
            "data",
            result.no_gain,
            result.output,
        )
    elif result.score_name == LOSS and result.start_score == result.best_score == 0:
        logger.warning(
            "dev_loss is 0 before and after training: the held-out rows have no negatives that "
            "differ from each other, so the loss is meaningless; give graded pairs with --dev"
        )


def _summary(built: Build, result: TrainResult, pooling: str) -> dict[str, str]:
    """Describe the run for the model card and the page of curves."""
    plan, method = built.plan, built.method
    config, corpus, training = plan.config, plan.corpus, plan.config.training
    skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items())
    rows = {
        "Method": method.name if method.paper is None else f"{method.name}: {method.paper}",
        "Start": config.model.name,
        "Pooling": pooling,
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
        rows["Peak memory"] = gigabytes(result.peak_memory)
    if result.truncated is not None:
        rows["Sentences cut"] = (
            f"{100 * result.truncated:.1f} % longer than {config.data.max_length} tokens"
        )
    if result.unknown:
        rows["Unknown tokens"] = f"{percent(result.unknown)}, not in the vocabulary"
    if result.stopped_early is not None:
        rows["Steps"] += f"; {result.stopped_early}"
    if result.no_gain is not None:
        rows["Result"] = f"{result.no_gain}; this encoder is the start"
    if result.best_score is not None:
        dev = "held-out loss" if plan.dev is None else f"Spearman on {plan.dev.name}"
        rows["Best"] = (
            f"{dev} {result.best_score:.4g} at step {result.best_step}, "
            f"{shown(result.start_score)} before"
        )
    elif result.undefined is not None and result.no_gain is None:
        rows["Best"] = f"not known: {result.undefined}; the last state was kept"
    for name in method.companions():
        rows[f"Encoder {name}"] = f"in the subfolder {name}/, which opens like this folder"
    return rows


def _place(made_with: dict[str, str]) -> str:
    device = made_with["device"]
    return made_with["gpu"] if device.startswith("cuda") else device.upper()


def _teachers(options: MethodConfig) -> dict[str, str]:
    return {"Teachers": ", ".join(options.teachers)} if isinstance(options, TeacherConfig) else {}


def _card(encoder: SentenceEncoder, method: Method, summary: dict[str, str]) -> str:
    """Write the model card: how to use the encoder, how it was trained, what to cite."""
    facts = "\n".join(f"| {escaped(name)} | {escaped(value)} |" for name, value in summary.items())
    paper = method.paper
    source = (
        f"Method `{method.name}`"
        if paper is None
        else f"Method: *{paper.title}* ({paper.year}), <https://arxiv.org/abs/{paper.arxiv}>"
    )
    return f"""{default_card(encoder)}
## Training

| | |
|---|---|
{facts}

{RUN_FILES}

{source}
"""
