"""Settings that change nothing in the combination that a run has."""

from __future__ import annotations

from simcse_kit.config import EvaluationSection, RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.corpus import Corpus
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig

__all__ = ["unused_settings"]


def unused_settings(
    config: RunConfig,
    method: type[Method],
    options: MethodConfig,
    corpus: Corpus,
    steps: int,
    augment: AugmentedViews | None,
) -> list[str]:
    """A sentence for each setting that has no effect.

    Args:
        config: the run.
        method: its method.
        options: the method's options.
        corpus: the training text.
        steps: optimizer steps of the run.
        augment: what ``data.augment`` says.
    """
    found = method.unused(options, corpus.kind, corpus.negatives)
    evaluation, fields = config.evaluation, EvaluationSection.model_fields
    by_dev = evaluation.dev is not None and evaluation.select in (None, "dev")
    if by_dev and evaluation.held_out not in (0, fields["held_out"].default):
        found.append(
            f"evaluation.held_out = {evaluation.held_out} has no effect: the dev set chooses the "
            "checkpoint, so that no rows are held out"
        )
    if evaluation.on_collapse != "warn" and not evaluation.trace_every:
        found.append(
            f"evaluation.on_collapse = {evaluation.on_collapse!r} has no effect: "
            "evaluation.trace_every = 0 measures nothing that shows a collapse"
        )
    if evaluation.every > steps and evaluation.every != fields["every"].default:
        found.append(
            f"evaluation.every = {evaluation.every} is more than the {steps} steps of the run: "
            "there is a score before the first and after the last of them only"
        )
    if augment is not None and not augment.changes:
        found.append("data.augment has no effect: identity changes no text")
    return found
