"""Checks of a run's settings that need no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simcse_kit.config import EvaluationSection, RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.encoder.folder.recipe import read_recipe
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.encoder.pooling import check_pooling
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.training.arguments import check_reporting
from simcse_kit.training.batching.chunking import check_chunking
from simcse_kit.training.plan import RunPlan, StartOptions
from simcse_kit.training.state.output_dir import check_output
from simcse_kit.training.trainer_fields import check_trainer_keys

__all__ = ["CheckedSettings", "check_settings", "unused_settings"]


@dataclass(frozen=True)
class CheckedSettings:
    """What the checks have opened on the way.

    Attributes:
        folder: the folder to write into, see
            :func:`~simcse_kit.training.state.output_dir.check_output`.
        dev: the dev set, if one is configured.
        augment: the augmentation of the views, if one is configured.
    """

    folder: Path
    dev: DevSet | None
    augment: AugmentedViews | None


def check_settings(
    config: RunConfig,
    method: type[Method],
    options: MethodConfig,
    start: StartOptions,
    processes: int,
) -> CheckedSettings:
    """Refuse settings that are wrong, before the text is read, which may take long.

    Raises:
        ConfigError: a setting is wrong, or the output folder cannot be used.
        DataError: the dev set is wrong.
        ModelError: the model cannot be found, or its recipe is not supported.
    """
    training = config.training
    if start.allow_changed and not start.resume:
        raise ConfigError(
            "--allow-changed applies only to a resumed run; add --resume or leave it out"
        )
    check_trainer_keys(config.trainer, schedule=training.schedule)
    check_reporting(training.report_to)
    check_chunking(method, options, training, processes)
    chains = config.data.augment
    augment = (
        None
        if chains is None
        else AugmentedViews(chains, training.seed, allow_call=start.allow_call)
    )
    if not config.data.train:
        raise ConfigError("no training data: name files or folders, such as data/sentences.txt")
    if config.evaluation.select == "dev" and config.evaluation.dev is None:
        raise ConfigError("evaluation.select is 'dev' but there is no dev set; give --dev")
    folder = check_output(Path(training.output), resume=start.resume, overwrite=start.overwrite)
    model = config.model
    if model.pooling is not None:
        check_pooling(model.pooling)
    read_recipe(resolve_model(model.name, trust_remote_code=model.trust_remote_code))
    for name in options.other_models():
        read_recipe(resolve_model(name))
    dev = None if config.evaluation.dev is None else DevSet.load(config.evaluation.dev)
    return CheckedSettings(folder, dev, augment)


def unused_settings(plan: RunPlan) -> list[str]:
    """List the settings that have no effect in this run, one sentence for each."""
    found = plan.options.unused(plan.data)
    evaluation, fields = plan.config.evaluation, EvaluationSection.model_fields
    steps = plan.arguments.max_steps
    by_dev = evaluation.dev is not None and evaluation.select in (None, "dev")
    if by_dev and evaluation.held_out not in (0, fields["held_out"].default):
        found.append(
            f"evaluation.held_out = {evaluation.held_out} has no effect: the dev set chooses the "
            "checkpoint, so no rows are held out"
        )
    if evaluation.on_collapse != "warn" and not evaluation.trace_every:
        found.append(
            f"evaluation.on_collapse = {evaluation.on_collapse!r} has no effect: with "
            "evaluation.trace_every = 0 nothing is measured that could show a collapse"
        )
    if evaluation.every > steps and evaluation.every != fields["every"].default:
        found.append(
            f"evaluation.every = {evaluation.every} is more than the {steps} steps of the run: "
            "the score is measured only before the first step and after the last"
        )
    if plan.augment is not None and not plan.augment.changes:
        found.append("data.augment has no effect: identity changes no text")
    return found
