"""Construction of what a plan needs for training: encoder, method, scorers, trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import transformers
from transformers import TrainerCallback

from simcse_kit.data.collate import BatchCounts, Collator, CountingCollator
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.fewer_layers import keep_layers
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.training.batching.chunking import gradient_cache, memory_plan
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.recompute import recompute_activations, wants_recompute
from simcse_kit.training.callbacks import (
    MethodState,
    MetricsFile,
    ProgressBar,
    StepFlow,
    Trace,
    as_callback,
)
from simcse_kit.training.devices import use_deterministic_operators
from simcse_kit.training.measurements import Measurements
from simcse_kit.training.mlm_proposals import Proposals
from simcse_kit.training.monitor.collapse import CollapseMonitor, Facts
from simcse_kit.training.monitor.geometry_probe import Probe
from simcse_kit.training.plan import RunPlan
from simcse_kit.training.selection import (
    BOTH,
    SHAPE,
    Scorer,
    batches_of,
    dev_scorer,
    in_one_piece,
    joined,
    loss_scorer,
    shape_scorer,
)
from simcse_kit.training.state.output_dir import CHECKPOINTS, METRICS, check_space, claim_folder
from simcse_kit.training.targets import Targets, targets_of
from simcse_kit.training.text_checks import check_vocabulary
from simcse_kit.training.trainer import ContrastiveTrainer
from simcse_kit.utils.distributed import Processes

__all__ = ["Build", "build"]

logger = logging.getLogger(__name__)

# Rows that a memory plan measures.
_SAMPLED = 256
# Rows whose anchors are counted once a collapse needs an explanation.
_FOR_DUPLICATES = 10_000


@dataclass(frozen=True)
class Build:
    """Everything that a run needs to train.

    Attributes:
        plan: the plan of the run.
        method: the method, on its device.
        trainer: the trainer, ready for its first step.
        counts: counts of the sentences that training tokenizes.
        monitor: the monitor of collapse of the embeddings; None if nothing is measured.
        start_model: fingerprint of the weights that training starts from.
        sentences_per_step: sentences of an optimizer step.
    """

    plan: RunPlan
    method: Method
    trainer: ContrastiveTrainer
    counts: BatchCounts
    monitor: CollapseMonitor | None
    start_model: str
    sentences_per_step: int


def build(
    plan: RunPlan, processes: Processes, callbacks: Sequence[TrainerCallback | object] = ()
) -> Build:
    """Load the encoder, claim the output folder and construct the trainer.

    Args:
        plan: the plan of the run.
        processes: the processes that share each batch.
        callbacks: further callbacks of the user; see
            :func:`~simcse_kit.training.callbacks.as_callback`.

    Raises:
        ConfigError: the memory budget or the disk is too small, or the folder cannot be written.
        DataError: the model does not know the text.
        ModelError: the model cannot be opened or lacks what the method needs.
    """
    added = [as_callback(callback, first=processes.first) for callback in callbacks]
    config, arguments = plan.config, plan.arguments
    method, start_model, targets = _method(plan, processes)
    processes.share_weights(method)
    length = min(config.data.max_length, method.encoder.max_length)
    check_vocabulary(plan, method.encoder, length)
    collator = _collator(plan, method, length, targets)
    memory = processes.from_first(
        lambda: memory_plan(
            method, lambda: _sample(plan, collator), config.training, arguments, length
        )
    )
    processes.from_first(lambda: _claim(plan, method))
    cache = gradient_cache(
        plan.folder, config.training, arguments, memory, resume=plan.resume, processes=processes
    )
    views = len(method.views(plan.data))
    accumulation = arguments.gradient_accumulation_steps
    per_step = config.training.batch_size * views * accumulation
    counting = CountingCollator(collator)
    trainer = ContrastiveTrainer(
        method,
        arguments,
        rows=plan.rows,
        collator=counting,
        measurements=Measurements(
            scorer=_scorer(plan, collator, cache, length),
            probe=_probe(plan, length),
            reference_loss=plan.contrast.reference_loss,
            sentences_per_step=per_step,
        ),
        cache=cache,
        processes=processes,
    )
    if _collates_ahead(plan):
        trainer.collate_ahead()
    monitor = _add_callbacks(trainer, plan, method, writes=processes.first)
    for callback in added:
        trainer.add_callback(callback)
    return Build(
        plan=plan,
        method=method,
        trainer=trainer,
        counts=counting.counts,
        monitor=monitor,
        start_model=start_model,
        sentences_per_step=per_step,
    )


def _collates_ahead(plan: RunPlan) -> bool:
    """Whether a thread collates batches while the device works on earlier ones.

    On a CPU it would take time from the steps. An augmentation that runs the model must not do so
    during a step.
    """
    runs_model = plan.augment is not None and plan.augment.needs_model
    arguments = plan.arguments
    on_cpu = arguments.device.type == "cpu"
    return not (on_cpu or runs_model or arguments.dataloader_num_workers)


def _method(plan: RunPlan, processes: Processes) -> tuple[Method, str, Targets | None]:
    """Load the encoder and construct the method.

    Returns:
        The method, the fingerprint of the weights that it starts from, and the vectors of its
        teachers.
    """
    config = plan.config
    if config.training.deterministic:
        use_deterministic_operators()
    # New weights, such as those of a head, depend on the seed too.
    transformers.set_seed(config.training.seed)
    encoder = SentenceEncoder.load(
        config.model.name,
        device="cpu",  # new weights are drawn there; the trainer moves the method
        pooling=config.model.pooling,
        trust_remote_code=config.model.trust_remote_code,
    )
    encoder.require_weights()
    assert encoder.source is not None
    start_model = fingerprint(encoder.source)
    if config.model.keep_layers is not None:
        keep_layers(encoder, config.model.keep_layers)
    targets = targets_of(plan, encoder, processes)
    if plan.augment is not None and plan.augment.needs_model:
        plan.augment.use(Proposals.of(encoder, plan.arguments.device))
    method = plan.method(encoder, plan.options).train()
    recompute = wants_recompute(config)
    if recompute is not None:
        recompute_activations(method, recompute)
    return method, start_model, targets


def _collator(plan: RunPlan, method: Method, max_length: int, targets: Targets | None) -> Collator:
    encoder = method.encoder

    def tokenize(texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encoder.tokenize(texts, max_length=max_length)

    return Collator(
        tokenize,
        encoder.tokenizer.pad_token_id,
        plan.views,
        plan.augment,
        unknown_id=encoder.tokenizer.unk_token_id,
        bare=tokenize([""])[0][0],
        label_scale=plan.label_scale,
        targets=targets,
    )


def _sample(plan: RunPlan, collator: Collator) -> Batch:
    """Collate rows from the whole corpus, at equal distances, as one batch."""
    distance = max(1, len(plan.rows) // _SAMPLED)
    numbers = range(0, len(plan.rows), distance)[:_SAMPLED]
    return Batch(**collator(plan.rows.__getitems__(numbers)))


def _claim(plan: RunPlan, method: Method) -> None:
    """Take the output folder, after checking that the disk has space for the run."""
    steps = math.ceil(plan.arguments.max_steps / plan.config.evaluation.every)
    check_space(method, plan.folder / CHECKPOINTS, plan.arguments.save_total_limit, steps)
    claim_folder(
        plan.folder,
        plan.output,
        plan.config,
        plan.corpus.fingerprint,
        plan.held_out_digest,
        resume=plan.resume,
    )


def _scorer(
    plan: RunPlan, collator: Collator, cache: GradientCache | None, max_length: int
) -> Scorer | None:
    """Combine everything that the dev metrics come from; None if there is nothing."""
    training = plan.config.training
    scorers = []
    if plan.dev is not None:
        scorers.append(dev_scorer(plan.dev))
    if plan.held_out:
        batches = batches_of(plan.held_out, max(2, training.batch_size), collator)
        scorers.append(loss_scorer(batches, training.seed, cache or in_one_piece))
    if plan.score_name in (SHAPE, BOTH):
        scorers.append(shape_scorer(_held_out_probe(plan, max_length)))
    return joined(scorers) if scorers else None


def _probe(plan: RunPlan, max_length: int) -> Probe | None:
    """Choose the sentences of the trace: from the dev set, or else from the held-out rows."""
    if not plan.config.evaluation.trace_every:
        return None
    seed = plan.config.training.seed
    if plan.dev is not None:
        return Probe.of_pairs(plan.dev.pairs, seed, max_length)
    return Probe.of_rows(plan.held_out, plan.corpus.kind, seed, max_length)


def _held_out_probe(plan: RunPlan, max_length: int) -> Probe:
    """Take all held-out rows, to choose a checkpoint by their alignment and uniformity."""
    count = len(plan.held_out)
    seed = plan.config.training.seed
    probe = Probe.of_rows(
        plan.held_out, plan.corpus.kind, seed, max_length, sentences=count, pairs=count
    )
    if probe is None:
        raise ConfigError(
            f"all {count} held-out rows have the same text, so uniformity is not defined; "
            "choose with evaluation.select = 'loss'"
        )
    return probe


def _add_callbacks(
    trainer: ContrastiveTrainer, plan: RunPlan, method: Method, *, writes: bool
) -> CollapseMonitor | None:
    """Add the callbacks of every run, and return the monitor of collapse."""
    evaluation, measured = plan.config.evaluation, trainer.measurements
    callbacks: list[TrainerCallback] = [MethodState(method)]
    if writes:
        callbacks.append(MetricsFile(plan.folder / METRICS))
        callbacks.append(ProgressBar(measured.sentences_per_step, str(plan.contrast)))
    monitor = None
    # After the metrics file, which starts empty.
    if measured.probe is not None:
        monitor = CollapseMonitor(
            evaluation.on_collapse, lambda: _facts(plan, method), trainer.go_back
        )
        callbacks += [monitor, Trace(evaluation.trace_every, trainer.trace)]
    callbacks.append(StepFlow(None if measured.scorer is None else trainer.evaluate))
    for callback in callbacks:
        trainer.add_callback(callback)
    return monitor


def _facts(plan: RunPlan, method: Method) -> Facts:
    """Collect what can explain a collapse."""
    rows = plan.rows.__getitems__(range(min(len(plan.rows), _FOR_DUPLICATES)))
    anchors = [row.texts[0] for row in rows]
    return Facts(
        views_are_equal=method.views_are_equal,
        negatives=plan.contrast.in_batch,
        needs_negatives=plan.contrast.needed,
        temperature=getattr(plan.options, "temperature", None),
        learning_rate=plan.config.training.learning_rate,
        duplicates=1 - len(set(anchors)) / len(anchors),
        remedy=plan.options.collapse_remedy(),
    )
