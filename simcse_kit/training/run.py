"""A training run in four phases: prepare, build, fit, finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.training.build import Build, build
from simcse_kit.training.device_limits import device_errors, restart_peak
from simcse_kit.training.plan import RunPlan, StartOptions
from simcse_kit.training.prepare import prepare
from simcse_kit.training.result import TrainResult, result_of
from simcse_kit.training.save_results import save_results
from simcse_kit.training.state.checkpoints import checkpoint_to_resume, log_of, step_of
from simcse_kit.training.state.output_dir import CHECKPOINTS
from simcse_kit.training.state.replacement import put_in_place
from simcse_kit.utils.distributed import Processes
from simcse_kit.utils.locks import output_locked

__all__ = ["run_training"]

logger = logging.getLogger(__name__)

# How long processes wait for one that is silent; one that died is noticed at once.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Fit:
    """How the optimisation went.

    Attributes:
        seconds: its wall time.
        first_step: step of the checkpoint that it continued from; 0 for a new run.
    """

    seconds: float
    first_step: int


def run_training(
    config: RunConfig,
    start: StartOptions | None = None,
    *,
    callbacks: Sequence[object] = (),
    report: bool = True,
) -> TrainResult:
    """Train an encoder and save the best checkpoint.

    Configuration, training text, dev set and output folder are checked before the model is loaded;
    nothing is written into the output folder before the model and the method are ready.

    With torchrun, accelerate or another launcher that sets RANK and WORLD_SIZE, the processes share
    every batch: ``training.batch_size`` is that of all of them together, every anchor meets the
    negatives of the whole batch, and the gradient is that of the loss of the whole batch.

    Args:
        config: the configuration of the run.
        start: how the run starts; by default as a new run.
        callbacks: see :func:`~simcse_kit.training.callbacks.as_callback`.
        report: whether to write training.html with the curves.

    Raises:
        ConfigError: a setting is wrong, the memory budget is too small, the output folder cannot
            be used, or the GPU is out of memory.
        DataError: the training text or the dev set is wrong.
        ModelError: the model cannot be opened or lacks what the method needs, or training diverged.
        SimcseError: another process has ended.
    """
    start = start or StartOptions()
    with Processes.joined(patience=_PATIENCE) as processes, ExitStack() as lock:
        _quiet_others(processes)
        plan = _prepare(config, start, processes)
        processes.from_first(lambda: _lock(plan.output, lock))
        with device_errors(plan):
            restart_peak(plan.arguments.device)
            built = build(plan, processes, callbacks)
            return _finish(built, _fit(built, processes), processes, report=report)


def _prepare(config: RunConfig, start: StartOptions, processes: Processes) -> RunPlan:
    """Check settings and text; the first process fills the cache that the others then read."""
    plan = prepare(config, start, processes.size) if processes.first else None
    processes.barrier()
    plan = plan or prepare(config, start, processes.size)
    if not processes.first:
        plan.arguments.report_to = []
    return plan


def _fit(built: Build, processes: Processes) -> Fit:
    """Train to the last step, from a checkpoint if the run is resumed.

    Raises:
        ModelError: training diverged, or collapsed before there was a checkpoint to keep.
    """
    trainer, plan = built.trainer, built.plan
    checkpoint = None
    if plan.resume:
        checkpoint = processes.from_first(lambda: checkpoint_to_resume(plan.folder / CHECKPOINTS))
    first_step = 0 if checkpoint is None else step_of(checkpoint)
    began = time.perf_counter()
    if checkpoint is not None and _is_last(built, checkpoint):
        trainer.reopen(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - began
    monitor = built.monitor
    if monitor is not None and monitor.stopped and trainer.state.best_model_checkpoint is None:
        raise ModelError(
            f"{monitor.finding}; training stopped before there was a good checkpoint to keep"
        )
    return Fit(seconds, first_step)


def _is_last(built: Build, checkpoint: Path) -> bool:
    """Whether the run ends at a checkpoint, because of its steps or of its patience."""
    step = step_of(checkpoint)
    if step >= built.plan.arguments.max_steps:
        return True
    return built.watch is not None and built.watch.is_exhausted(log_of(checkpoint), step)


def _finish(built: Build, fit: Fit, processes: Processes, *, report: bool) -> TrainResult:
    """Save the encoder with its records, and put a replacing run in its final place."""
    plan = built.plan
    result = result_of(
        built, seconds=fit.seconds, first_step=fit.first_step, processes=processes.size
    )
    processes.from_first(lambda: save_results(built, result, report=report))
    if plan.folder != plan.output:
        processes.from_first(lambda: put_in_place(plan.folder, plan.output))
    return result


def _quiet_others(processes: Processes) -> None:
    """Let only the first process log."""
    if processes.size > 1:
        # It warns, in each process, that it has not created the process group itself.
        logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    if not processes.first:
        logging.getLogger("simcse_kit").setLevel(logging.ERROR)


def _lock(output: Path, lock: ExitStack) -> None:
    """Keep other runs out of the output folder until this one ends."""
    busy = f"is training into {output}; wait until it has finished, or give another --output"
    try:
        lock.enter_context(output_locked(output, "training", busy=busy))
    except OSError as error:
        raise ConfigError(
            f"output folder {output} cannot be used: {error.strerror or error}"
        ) from None
