"""From a configuration to a trained encoder in a folder."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Collection
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import torch
import transformers

from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.batching.chunking import gradient_cache, memory_plan
from simcse_kit.training.batching.recompute import recompute_activations, wants_recompute
from simcse_kit.training.build import assembled_trainer, collator_of, longest, sample
from simcse_kit.training.callbacks import history_rows
from simcse_kit.training.mlm_proposals import Proposals
from simcse_kit.training.plan import Prepared, prepare
from simcse_kit.training.result import TrainResult, save_results
from simcse_kit.training.state.checkpoints import (
    newest_checkpoint,
    remove_torn_best,
    remove_unfinished,
    step_of,
)
from simcse_kit.training.state.disk_space import check_room
from simcse_kit.training.state.output_dir import CHECKPOINTS, claim_folder
from simcse_kit.training.state.replacement import put_in_place
from simcse_kit.training.unknown_text import check_vocabulary
from simcse_kit.utils.distributed import Processes
from simcse_kit.utils.environment import environment
from simcse_kit.utils.locks import output_locked

__all__ = ["TrainResult", "train"]

logger = logging.getLogger(__name__)

# How long processes wait for one that is silent; one that died is noticed at once.
_PATIENCE = timedelta(minutes=30)


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changed: bool = False,
    allow_call: Collection[str] = (),
) -> TrainResult:
    """Train an encoder and save the best checkpoint.

    Configuration, training text, dev set and output folder are checked before the model loads;
    the output folder is written to only when the model and the method are there.

    Started by torchrun (or accelerate, or another launcher that sets RANK and WORLD_SIZE), the
    processes share every batch: ``training.batch_size`` is that of all of them together, every
    anchor meets the negatives of the whole batch, and the gradient is that of the loss of the whole
    batch.

    Args:
        config: the run.
        resume: go on from the newest complete checkpoint in the output folder; from the first step
            where the run was interrupted before there was one.
        overwrite: replace an earlier run in the output folder, once this one is complete.
        allow_changed: resume even where configuration or training text are not those that the run
            was begun with; what differs is logged.
        allow_call: modules and packages whose functions augmentations may call; a configuration
            alone never lets code run.

    Returns:
        Where the encoder is, and how the run went.

    Raises:
        ConfigError: a setting is wrong, the memory budget is too small, or the output folder
            cannot be used; or ``config`` is no RunConfig.
        DataError: the training text or the dev set is wrong.
        ModelError: the model cannot be opened or lacks what the method needs, or training diverged.
        SimcseError: another process has ended.
    """
    if not isinstance(config, RunConfig):
        raise ConfigError(
            f"train() takes a RunConfig, not {type(config).__name__}; make one: "
            "RunConfig(model=..., data=..., training=...)"
        )
    with Processes.met(patience=_PATIENCE) as processes:
        _refuse_many_devices()
        if processes.size > 1:
            # It warns, in each process, that it has not made the processes' group itself.
            logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
        if not processes.first:
            logging.getLogger("simcse_kit").setLevel(logging.ERROR)
        with ExitStack() as held:
            return _train(
                config,
                processes,
                held,
                resume=resume,
                overwrite=overwrite,
                allow_changed=allow_changed,
                allow_call=allow_call,
            )


def _train(
    config: RunConfig,
    processes: Processes,
    held: ExitStack,
    *,
    resume: bool,
    overwrite: bool,
    allow_changed: bool,
    allow_call: Collection[str],
) -> TrainResult:
    def prepared_run() -> Prepared:
        return prepare(
            config,
            resume=resume,
            overwrite=overwrite,
            allow_changed=allow_changed,
            allow_call=allow_call,
            processes=processes.size,
        )

    # The first puts the text into the cache, where the others find it.
    first = prepared_run() if processes.first else None
    processes.meet()
    prepared = first or prepared_run()
    config, arguments = prepared.config, prepared.arguments
    processes.agree(lambda: _hold(Path(config.training.output), held))
    if not processes.first:
        arguments.report_to = []

    if config.training.deterministic:
        _use_deterministic_operators()
    # Weights that are new, such as the head's, depend on the seed too.
    transformers.set_seed(config.training.seed)
    encoder = SentenceEncoder.load(
        config.model.name,
        pooling=config.model.pooling,
        trust_remote_code=config.model.trust_remote_code,
    )
    encoder.require_weights()
    assert encoder.source is not None
    started_from = fingerprint(encoder.source)
    if prepared.augment is not None and prepared.augment.needs_model:
        prepared.augment.use(Proposals.of(encoder, arguments.device))
    method = prepared.method(encoder, prepared.options).train()
    recompute = wants_recompute(config)
    if recompute is not None:
        recompute_activations(method, recompute)
    processes.share_weights(method)
    check_vocabulary(prepared, encoder, longest(prepared, method))
    collator, uncounted = (collator_of(prepared, method) for _ in range(2))
    plan = processes.agree(
        lambda: memory_plan(
            method,
            lambda: sample(prepared.rows, uncounted),
            config.training,
            arguments,
            longest(prepared, method),
        )
    )
    processes.agree(lambda: _claim(prepared, method, resume))
    cache = gradient_cache(
        prepared.folder, config.training, arguments, plan, resume=resume, processes=processes
    )
    trainer, per_step, doctor = assembled_trainer(
        prepared, method, collator, uncounted, cache, processes
    )
    checkpoint = (
        processes.agree(lambda: _to_resume(prepared.folder / CHECKPOINTS)) if resume else None
    )
    began = time.perf_counter()
    if checkpoint is not None and step_of(checkpoint) >= arguments.max_steps:
        trainer.reopen(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - began

    state, name = trainer.state, prepared.score_name
    if doctor is not None and doctor.stopped and state.best_model_checkpoint is None:
        raise ModelError(
            f"{doctor.finding}; it was stopped before there was a good checkpoint to keep"
        )
    history = history_rows(state.log_history)
    here = state.global_step - (0 if checkpoint is None else step_of(checkpoint))
    result = TrainResult(
        output=prepared.output,
        steps=state.global_step,
        sentences=here * per_step,
        seconds=seconds,
        score_name=name,
        start_score=next((row[name] for row in history if name in row and not row["step"]), None),
        best_score=None if state.best_metric is None else float(state.best_metric),
        best_step=None
        if state.best_model_checkpoint is None
        else step_of(state.best_model_checkpoint),
        truncated=collator.truncated,
        unknown=collator.unknown_share,
        skipped=dict(prepared.corpus.report.skipped),
        collapse=None if doctor is None else doctor.finding,
        history=history,
        made_with=environment()
        | {
            "seed": str(config.training.seed),
            "deterministic": str(config.training.deterministic).lower(),
            "processes": str(processes.size),
            "training_text": prepared.corpus.fingerprint,
            "start_model": started_from,
        },
    )
    dev_name = None if prepared.dev is None else prepared.dev.name
    processes.agree(
        lambda: save_results(config, method, prepared.corpus, dev_name, result, prepared.folder)
    )
    if prepared.folder != prepared.output:
        processes.agree(lambda: put_in_place(prepared.folder, prepared.output))
    return result


def _hold(output: Path, held: ExitStack) -> None:
    """Keep other runs out of the output folder until the end of this one."""
    busy = f"trains into {output} at this time; wait until it is through, or give another --output"
    try:
        held.enter_context(output_locked(output, "training", busy=busy))
    except OSError as error:
        raise ConfigError(
            f"output folder {output} cannot be used: {error.strerror or error}"
        ) from None


def _claim(prepared: Prepared, method: Method, resume: bool) -> None:
    """Take the output folder, once it is known that there is room for what will be written."""
    arguments, config = prepared.arguments, prepared.config
    check_room(
        method,
        prepared.folder / CHECKPOINTS,
        arguments.save_total_limit,
        math.ceil(arguments.max_steps / config.evaluation.every),
    )
    claim_folder(
        prepared.folder,
        prepared.output,
        config,
        prepared.corpus.fingerprint,
        prepared.held_out,
        resume=resume,
    )


def _use_deterministic_operators() -> None:
    # Read when the first matrix product is made on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    logger.info(
        "deterministic operators only: on CPUs the same seed and number of threads give the same "
        "bytes anyway, and nothing is lost; on GPUs steps take longer, and an operator without a "
        "deterministic form stops the run"
    )


def _to_resume(folder: Path) -> Path | None:
    """The checkpoint to go on from; what cannot be used after it is removed."""
    checkpoint = newest_checkpoint(folder)
    remove_unfinished(folder, checkpoint)
    if checkpoint is not None:
        remove_torn_best(checkpoint)
    if checkpoint is None:
        logger.warning("%s has no complete checkpoint; the run begins with its first step", folder)
    else:
        logger.info("resuming from step %d", step_of(checkpoint))
    return checkpoint


def _refuse_many_devices() -> None:
    if torch.cuda.device_count() > 1:
        raise ConfigError(
            f"{torch.cuda.device_count()} GPUs are visible and the trainer would split the batch "
            "between them, and with it the negatives; start a process for each of them: torchrun "
            "--nproc-per-node gpu -m simcse_kit train ..., or set CUDA_VISIBLE_DEVICES to one"
        )
