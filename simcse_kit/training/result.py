"""What a run gave, and the files it leaves beside the encoder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.encoder.token_counts import percent
from simcse_kit.evaluation.report.page import write_training_report
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.checks import negatives_text
from simcse_kit.training.model_card import training_card
from simcse_kit.training.selection import LOSS, SPEARMAN, UNDEFINED
from simcse_kit.training.state.output_dir import RESULT
from simcse_kit.utils.files import write_whole

__all__ = ["TrainResult", "save_results"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        output: folder of the encoder; ``SentenceEncoder.load`` opens it.
        steps: optimizer steps made in all.
        sentences: sentences that this process trained on, absent hard negatives included; a
            resumed run does not count those of the run before it.
        seconds: wall time of the optimisation in this process.
        score_name: ``dev_spearman`` (x100, higher is better), ``dev_loss`` (lower is better), or
            None where nothing was evaluated.
        start_score: the score before the first step; None where it was undefined.
        best_score: the score of the checkpoint that was kept; None where it was always undefined.
        best_step: its step.
        truncated: share of the sentences that were cut to ``data.max_length``; None where it was
            not counted, because worker processes read the data or no step was made.
        unknown: share of the tokens that are not in the model's vocabulary; None where it was not
            counted, as for ``truncated``.
        skipped: bad rows of the input by reason.
        collapse: what was found of a collapse of the embeddings; None where there was none.
        history: the rows of metrics.jsonl.
        made_with: versions, processor, threads, seed, fingerprints of training text and start
            model, commit of the current folder.
    """

    output: Path
    steps: int
    sentences: int
    seconds: float
    score_name: str | None
    start_score: float | None
    best_score: float | None
    best_step: int | None
    truncated: float | None
    unknown: float | None
    skipped: dict[str, int]
    collapse: str | None
    history: list[dict[str, float]]
    made_with: dict[str, str] = field(default_factory=dict)

    @property
    def undefined(self) -> str | None:
        """What to say of a run whose score was undefined at every checkpoint; else None."""
        if self.score_name is None or self.best_score is not None:
            return None
        cause = UNDEFINED.get(self.score_name, "it was not measured")
        return f"{self.score_name} was undefined at every checkpoint, because {cause}"

    @property
    def sentences_per_second(self) -> float:
        """Training speed, evaluations and checkpoints included."""
        return self.sentences / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The result without its history, for ``simcse train --json``."""
        return {
            "output": str(self.output),
            "steps": self.steps,
            "sentences": self.sentences,
            "seconds": round(self.seconds, 2),
            "sentences_per_second": round(self.sentences_per_second, 1),
            "score_name": self.score_name,
            "start_score": self.start_score,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "undefined": self.undefined,
            "truncated": self.truncated,
            "unknown": self.unknown,
            "skipped": self.skipped,
            "collapse": self.collapse,
            "made_with": self.made_with,
        }


def save_results(
    config: RunConfig,
    method: Method,
    corpus: Corpus,
    dev_name: str | None,
    result: TrainResult,
    folder: Path,
) -> None:
    """Write the encoders, with a card, then ``training.html``, and ``result.json`` last.

    Args:
        config: the run.
        method: holds the encoder, in the state to keep.
        corpus: the training text.
        dev_name: what the dev set is called; None for held-out rows.
        result: how the run went.
        folder: where to write.

    Raises:
        ModelError: the encoder cannot be written.
        ConfigError: the report cannot be written.
    """
    _warn_of_no_gain(result)
    summary = _summary(config, method, corpus, dev_name, result)
    for name, encoder in method.companions().items():
        encoder.save(folder / name)
    method.encoder.save(folder, card=training_card(method, summary))
    write_training_report(
        result.history, folder, title=f"Training of {config.model.name}", summary=summary
    )
    write_whole(folder / RESULT, json.dumps(result.to_json(), indent=2) + "\n")


def _warn_of_no_gain(result: TrainResult) -> None:
    if result.start_score is None or result.best_score is None:
        return
    if result.score_name == LOSS and result.start_score == result.best_score == 0:
        logger.warning(
            "dev_loss is 0 before and after training: the held-out rows have no negatives that "
            "differ from each other, so the loss says nothing; give graded pairs with --dev"
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


def _summary(
    config: RunConfig, method: Method, corpus: Corpus, dev_name: str | None, result: TrainResult
) -> Mapping[str, str]:
    training = config.training
    negatives = negatives_text(
        type(method), method.options, training.batch_size, corpus.kind, corpus.negatives
    )
    skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items())
    rows = {
        "Method": f"{method.name}: {method.paper.title} (arXiv {method.paper.arxiv})",
        "Start": config.model.name,
        "Pooling": method.encoder.pooling,
        "Data": f"{len(corpus):,} {corpus.kind}" + (f", skipped: {skipped}" if skipped else ""),
        "Batch": f"{training.batch_size} rows, {negatives}",
        "Learning rate": f"{training.learning_rate:g}, {training.schedule}",
        "Steps": f"{result.steps:,} in {result.seconds:.0f} s "
        f"({result.sentences_per_second:.0f} sentences/s)",
        "Seed": str(training.seed),
    }
    if result.truncated is not None:
        rows["Sentences cut"] = (
            f"{100 * result.truncated:.1f} % longer than {config.data.max_length} tokens"
        )
    if result.unknown:
        rows["Unknown tokens"] = f"{percent(result.unknown)}, not in the vocabulary"
    if result.best_score is not None:
        dev = "held-out loss" if dev_name is None else f"Spearman on {dev_name}"
        start = "undefined" if result.start_score is None else f"{result.start_score:.4g}"
        rows["Best"] = f"{dev} {result.best_score:.4g} at step {result.best_step}, {start} before"
    elif result.undefined is not None:
        rows["Best"] = f"not known: {result.undefined}; the last state was kept"
    for name in method.companions():
        rows[f"Encoder {name}"] = f"in the folder {name}/ of this one; it opens like this one"
    return rows
