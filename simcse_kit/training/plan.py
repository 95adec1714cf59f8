"""What is known, and found good, of a run before any weights are loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from simcse_kit.config import MethodSection, RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.readers import Example
from simcse_kit.encoder.unknown_text import some
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.checks import check_batch, check_reads, negatives_text
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.training.arguments import training_arguments
from simcse_kit.training.batching.subset import RowSubset, drawn_one_by_one, rows_digest, split_rows
from simcse_kit.training.preflight import preflight
from simcse_kit.training.row_variety import ROWS, check_distinct
from simcse_kit.training.selection import BOTH, LOSS, SELECTIONS, SPEARMAN
from simcse_kit.training.state.resume import check_resumable
from simcse_kit.training.unused_settings import unused_settings

__all__ = ["Prepared", "check", "prepare"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run whose configuration, training text, dev set and output folder are good.

    ``output`` is the folder of the finished run, ``folder`` the one to write into until then;
    ``held_out`` tells which rows are kept back.
    """

    config: RunConfig
    method: type[Method]
    options: MethodConfig
    corpus: Corpus
    dev: DevSet | None
    rows: RowSubset
    kept_back: list[Example]
    held_out: str
    score_name: str | None
    output: Path
    folder: Path
    arguments: transformers.TrainingArguments
    accumulation: int
    views: tuple[int, ...]
    augment: AugmentedViews | None


def check(config: RunConfig, *, allow_call: Collection[str] = ()) -> None:
    """Find what is wrong with a run before any weights are loaded; nothing is trained.

    Args:
        config: the run.
        allow_call: modules whose functions augmentations may call.

    Raises:
        ConfigError: a setting is wrong, or the output folder cannot be used.
        DataError: the training text or the dev set is wrong.
    """
    prepare(config, resume=False, overwrite=True, allow_call=allow_call)


def prepare(
    config: RunConfig,
    *,
    resume: bool,
    overwrite: bool,
    allow_changed: bool = False,
    allow_call: Collection[str] = (),
    processes: int = 1,
) -> Prepared:
    """Check everything that needs no weights.

    Args:
        config: the run.
        resume: it goes on with what is in its output folder.
        overwrite: it replaces what is in its output folder.
        allow_changed: a resumed run may differ from the one that was begun.
        allow_call: modules whose functions augmentations may call.
        processes: how many share each batch.

    Raises:
        ConfigError: a setting is wrong, or the output folder cannot be used.
        DataError: the training text or the dev set is wrong.
    """
    training = config.training
    method: type[Method] = METHODS.resolve(config.method.name)
    options = build_config(config.method.name, config.method.options)
    # The method's defaults too, so that run.toml tells all and repeats the run later on.
    section = MethodSection.model_validate({"name": config.method.name, **options.model_dump()})
    config = config.model_copy(update={"method": section})
    accumulation: int = config.trainer.get("gradient_accumulation_steps", 1)
    ready = preflight(
        config,
        method,
        options,
        resume=resume,
        overwrite=overwrite,
        allow_changed=allow_changed,
        allow_call=allow_call,
        processes=processes,
    )
    dev, augment = ready.dev, ready.augment
    corpus = Corpus.build(
        config.data.train,
        columns=config.data.columns,
        on_bad_row=config.data.on_bad_row,
        label=config.data.label,
        documents=config.data.documents,
    )
    check_reads(method, corpus.kind)
    if corpus.kind == "labelled":
        method.check_labels(options, torch.tensor(corpus.labels()))
    _check_batch(method, options, corpus, training.batch_size, accumulation)
    _check_texts(method, corpus, training.batch_size)
    select = config.evaluation.select
    labels = dev is not None and select in (None, "dev")
    wanted = 0 if labels else config.evaluation.held_out
    rows, kept_back = split_rows(corpus, wanted, training.seed)
    if len(rows) < training.batch_size or len(kept_back) < 2:  # no rows to spare
        if select not in (None, "dev"):
            raise ConfigError(
                f"evaluation.select is {select!r}, which needs held-out rows: of {len(corpus):,} "
                f"rows evaluation.held_out = {config.evaluation.held_out} leaves {len(kept_back)} "
                f"to hold out and {len(rows):,} to train on in batches of {training.batch_size}"
            )
        rows, kept_back = split_rows(corpus, 0, training.seed)
    held_out = rows_digest([row.row for row in kept_back])
    if resume:
        before = drawn_one_by_one(len(corpus), wanted, training.seed)
        if len(corpus) - len(before) < training.batch_size or len(before) < 2:
            before = []
        check_resumable(
            ready.place,
            config,
            fingerprint=corpus.fingerprint,
            held_out=held_out,
            held_out_before=rows_digest(before),
            allow_changed=allow_changed,
        )
    name = SPEARMAN if labels else SELECTIONS[select or "loss"] if kept_back else None
    if name is None:
        logger.warning("nothing to evaluate on: the last state is kept, not the best")
    if name in (LOSS, BOTH) and method.collapse_is_lowest:
        logger.warning(
            "the checkpoint is chosen by the loss of held-out rows, which for method %r is lowest "
            "where all vectors are alike; give graded pairs with --dev, or keep the last state "
            "with --set evaluation.held_out=0",
            method.name,
        )
    steps_of_epoch = math.ceil(len(rows) // training.batch_size / accumulation)
    steps = training.max_steps or max(1, math.ceil(steps_of_epoch * training.epochs))
    arguments = training_arguments(config, ready.place, steps, name)
    for sentence in unused_settings(config, method, options, corpus, steps, augment):
        logger.warning("%s", sentence)
    views = method.views(corpus.kind, corpus.negatives)
    if augment is not None:
        views = augment.lay_out(corpus.kind, views)
        if augment.needs_model and arguments.dataloader_num_workers:
            raise ConfigError(
                "augmentation mlm runs the model, which data-loader workers do not have; leave out "
                f"trainer.dataloader_num_workers = {arguments.dataloader_num_workers}"
            )
    return Prepared(
        config,
        method,
        options,
        corpus,
        dev,
        rows,
        kept_back,
        held_out,
        name,
        Path(training.output),
        ready.place,
        arguments,
        accumulation,
        views,
        augment,
    )


def _check_texts(method: type[Method], corpus: Corpus, batch_size: int) -> None:
    rows = corpus.rows(some(range(len(corpus)), ROWS))
    check_distinct([row.texts for row in rows], corpus.kind, method, batch_size)


def _check_batch(
    method: type[Method], options: MethodConfig, corpus: Corpus, size: int, accumulation: int
) -> None:
    if len(corpus) < 2:
        raise DataError("the data has only 1 row, and training needs at least 2; give more data")
    if len(corpus) < size:
        raise ConfigError(
            f"training.batch_size is {size} but the data has only "
            f"{len(corpus)} rows; use --batch-size {len(corpus)} or less, or more data"
        )
    check_batch(method, options, size, corpus.kind, corpus.negatives)
    logger.info(
        "%d %s, %s%s",
        len(corpus),
        corpus.kind,
        negatives_text(method, options, size, corpus.kind, corpus.negatives),
        " (gradient accumulation adds none; a larger --batch-size with --memory-budget does)"
        if accumulation > 1 and method.needs_negatives
        else "",
    )
