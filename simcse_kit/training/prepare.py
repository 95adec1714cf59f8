"""First phase of a run: checks of the settings and of the training text, without any weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from pathlib import Path

import torch

from simcse_kit.config import EvaluationSection, MethodSection, RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.readers import Example
from simcse_kit.encoder.folder.recipe import read_recipe
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.encoder.pooling import check_pooling
from simcse_kit.encoder.unknown_text import some
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods import build_config, find_method
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.checks import check_batch, check_reads
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.teachers import TeacherConfig
from simcse_kit.training.arguments import check_reporting, training_arguments
from simcse_kit.training.batching.chunking import check_chunking
from simcse_kit.training.batching.subset import RowSubset, drawn_one_by_one, rows_digest, split_rows
from simcse_kit.training.column_prompts import column_prompts
from simcse_kit.training.data_defaults import with_method, with_scale
from simcse_kit.training.devices import resolve_precision, run_device
from simcse_kit.training.open_corpus import check_data_settings, open_corpus
from simcse_kit.training.plan import RunPlan, StartOptions
from simcse_kit.training.row_order import row_order, unused_sampling
from simcse_kit.training.selection import BOTH, LOSS, SELECTIONS, SPEARMAN
from simcse_kit.training.state.output_dir import check_output
from simcse_kit.training.state.resume import check_resumable
from simcse_kit.training.teachers import check_teacher
from simcse_kit.training.text_checks import ROWS, check_distinct
from simcse_kit.training.trainer_fields import check_trainer_keys

__all__ = ["check", "prepare", "unused_settings"]

logger = logging.getLogger(__name__)

# The default and the value of presets, which a user has not chosen for a short run.
_USUAL_EVERY = (EvaluationSection.model_fields["every"].default, 50)


def check(config: RunConfig, *, allow_call: Collection[str] = ()) -> None:
    """Check a run without loading weights; nothing is trained.

    Args:
        config: the configuration of the run.
        allow_call: modules and packages whose functions augmentations may call.

    Raises:
        ConfigError: a setting is wrong, or the output folder cannot be used.
        DataError: the training text or the dev set is wrong.
    """
    prepare(config, StartOptions(overwrite=True, allow_call=allow_call))


def prepare(config: RunConfig, start: StartOptions, processes: int = 1) -> RunPlan:
    """Check everything that needs no weights, and read the training text.

    Args:
        config: the configuration of the run.
        start: how the run starts.
        processes: number of processes that share each batch.

    Raises:
        ConfigError: a setting is wrong, or the output folder cannot be used.
        DataError: the training text or the dev set is wrong.
    """
    config = with_method(config)
    method = find_method(config.method.name)
    options = build_config(config.method.name, config.method.options)
    # With the method's defaults, so that run.toml is complete and repeats the run later on.
    section = MethodSection.model_validate({"name": config.method.name, **options.model_dump()})
    config = config.model_copy(update={"method": section})
    _check_settings(config, method, options, start, processes)
    device = run_device(config, processes)
    config = resolve_precision(config, device)
    chains = config.data.augment
    augment = (
        None
        if chains is None
        else AugmentedViews(chains, config.training.seed, allow_call=start.allow_call)
    )
    output = Path(config.training.output)
    folder = check_output(output, resume=start.resume, overwrite=start.overwrite)
    _check_models(config, options)
    dev = None if config.evaluation.dev is None else DevSet.load(config.evaluation.dev)
    corpus = open_corpus(config.data)
    data = DataSpec(corpus.kind, corpus.negatives)
    column_prompts(config.data, data)  # refuses unknown columns
    _check_corpus(corpus, data, method, options, config.training.batch_size)
    config = with_scale(config, corpus, options)
    by_dev = dev is not None and config.evaluation.select in (None, "dev")
    rows, held_out = _split(config, corpus, wanted=0 if by_dev else config.evaluation.held_out)
    score_name = _score_name(config, method, by_dev=by_dev, has_held_out=bool(held_out))
    views = method.views(data)
    if augment is not None:
        views = augment.lay_out(corpus.kind, views)
    plan = RunPlan(
        config=config,
        method=method,
        options=options,
        corpus=corpus,
        dev=dev,
        rows=rows,
        order=row_order(config, corpus, rows),
        held_out=held_out,
        score_name=score_name,
        folder=folder,
        resume=start.resume,
        arguments=training_arguments(
            config, folder, _steps(config, len(rows)), score_name, device=device
        ),
        views=views,
        augment=augment,
    )
    if start.resume:
        _check_resumable(plan, by_dev=by_dev, allow_changed=start.allow_changed)
    _log_remarks(plan)
    return plan


def _check_settings(
    config: RunConfig,
    method: type[Method],
    options: MethodConfig,
    start: StartOptions,
    processes: int,
) -> None:
    """Refuse wrong settings before the text is read, which may take long."""
    if start.allow_changed and not start.resume:
        raise ConfigError(
            "--allow-changed applies only to a resumed run; add --resume or leave it out"
        )
    check_trainer_keys(config.trainer, schedule=config.training.schedule)
    check_reporting(config.training.report_to)
    check_chunking(method, options, config.training, processes)
    check_data_settings(config)
    if config.training.merge_adapter and config.model.lora is None:
        raise ConfigError(
            "training.merge_adapter (--merge) merges the adapter of model.lora, and none is set; "
            "leave it out, or add --set model.lora.r=8"
        )
    if config.evaluation.select == "dev" and config.evaluation.dev is None:
        raise ConfigError("evaluation.select is 'dev' but there is no dev set; give --dev")


def _check_models(config: RunConfig, options: MethodConfig) -> None:
    """Refuse models that cannot be found or whose recipe is not supported."""
    model = config.model
    if model.pooling is not None:
        check_pooling(model.pooling)
    read_recipe(resolve_model(model.name, trust_remote_code=model.trust_remote_code))
    for name in options.other_models():
        read_recipe(resolve_model(name))
    if isinstance(options, TeacherConfig):
        for name in options.teachers:
            check_teacher(name)


def _check_corpus(
    corpus: Corpus,
    data: DataSpec,
    method: type[Method],
    options: MethodConfig,
    batch_size: int,
) -> None:
    """Refuse text that the method cannot read or cannot learn from."""
    check_reads(method, corpus.kind)
    if corpus.kind == "labelled":
        options.check_labels(torch.tensor(corpus.labels()))
    if len(corpus) < 2:
        raise DataError("the data has only 1 row, and training needs at least 2; give more data")
    if len(corpus) < batch_size:
        raise ConfigError(
            f"training.batch_size is {batch_size} but the data has only "
            f"{len(corpus)} rows; use --batch-size {len(corpus)} or less, or more data"
        )
    check_batch(method, options, data, batch_size)
    rows = corpus.rows(some(corpus.sampled, ROWS))
    check_distinct([row.texts for row in rows], corpus.kind, method, batch_size)


def _split(config: RunConfig, corpus: Corpus, wanted: int) -> tuple[RowSubset, list[Example]]:
    """Keep ``wanted`` rows back, or none if the data has no rows to spare."""
    training, evaluation = config.training, config.evaluation
    rows, held_out = split_rows(corpus, wanted, training.seed)
    if len(rows) >= training.batch_size and len(held_out) >= 2:
        return rows, held_out
    if evaluation.select not in (None, "dev"):
        raise ConfigError(
            f"evaluation.select is {evaluation.select!r}, which needs held-out rows: of "
            f"{len(corpus):,} rows evaluation.held_out = {evaluation.held_out} leaves "
            f"{len(held_out)} to hold out and {len(rows):,} to train on in batches of "
            f"{training.batch_size}"
        )
    return split_rows(corpus, 0, training.seed)


def _score_name(
    config: RunConfig, method: type[Method], *, by_dev: bool, has_held_out: bool
) -> str | None:
    """Choose the metric that selects the checkpoint, and warn if it is unreliable."""
    if by_dev:
        return SPEARMAN
    if not has_held_out:
        logger.warning("nothing to evaluate on: the last state is kept, not the best")
        return None
    name = SELECTIONS[config.evaluation.select or "loss"]
    if name in (LOSS, BOTH) and method.collapse_is_lowest:
        logger.warning(
            "the checkpoint is chosen by the loss of held-out rows, which for method %r is lowest "
            "when all vectors are equal; give graded pairs with --dev, or keep the last state "
            "with --set evaluation.held_out=0",
            method.name,
        )
    return name


def _steps(config: RunConfig, rows: int) -> int:
    """Count the optimizer steps of the whole run."""
    accumulation: int = config.trainer.get("gradient_accumulation_steps", 1)
    steps_of_epoch = math.ceil(rows // config.training.batch_size / accumulation)
    return config.training.max_steps or max(1, math.ceil(steps_of_epoch * config.training.epochs))


def _check_resumable(plan: RunPlan, *, by_dev: bool, allow_changed: bool) -> None:
    """Refuse to resume a run that was started with other settings, text or held-out rows."""
    size, seed = len(plan.corpus), plan.config.training.seed
    before = drawn_one_by_one(size, 0 if by_dev else plan.config.evaluation.held_out, seed)
    if size - len(before) < plan.config.training.batch_size or len(before) < 2:
        before = []
    check_resumable(
        plan.folder,
        plan.config,
        fingerprint=plan.corpus.fingerprint,
        held_out=plan.held_out_digest,
        held_out_before=rows_digest(before),
        allow_changed=allow_changed,
    )


def _log_remarks(plan: RunPlan) -> None:
    """Log the size of the data and the settings without effect; refuse workers that need a model.

    Raises:
        ConfigError: data-loader workers would have to run the model.
    """
    workers = plan.arguments.dataloader_num_workers
    if plan.augment is not None and plan.augment.needs_model and workers:
        raise ConfigError(
            "augmentation mlm runs the model, which data-loader workers do not have; leave out "
            f"trainer.dataloader_num_workers = {workers}"
        )
    logger.info(
        "%d %s, %s%s",
        len(plan.corpus),
        plan.corpus.kind,
        plan.contrast,
        " (gradient accumulation adds none; a larger --batch-size with --memory-budget does)"
        if plan.arguments.gradient_accumulation_steps > 1 and plan.contrast.needed
        else "",
    )
    for sentence in unused_settings(plan):
        logger.warning("%s", sentence)


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
    if plan.config.data.scale is not None and plan.label_scale is None:
        found.append(
            f"data.scale = {plan.config.data.scale} has no effect: method {plan.method.name!r} "
            "reads no scores"
        )
    if evaluation.on_collapse != "warn" and not evaluation.trace_every:
        found.append(
            f"evaluation.on_collapse = {evaluation.on_collapse!r} has no effect: with "
            "evaluation.trace_every = 0 nothing is measured that could show a collapse"
        )
    if evaluation.every > steps and evaluation.every not in _USUAL_EVERY:
        found.append(
            f"evaluation.every = {evaluation.every} is more than the {steps} steps of the run: "
            "the score is measured only before the first step and after the last"
        )
    if plan.config.training.patience is not None and plan.score_name is None:
        found.append(
            f"training.patience = {plan.config.training.patience} has no effect: nothing is "
            "evaluated"
        )
    found += unused_sampling(plan.config.data)
    if plan.augment is not None and not plan.augment.changes:
        found.append("data.augment has no effect: identity changes no text")
    return found
