"""Construction of what a plan needs for training: encoder, method, scorers, trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import transformers
from transformers import TrainerCallback

from simcse_kit.data.collate import BatchCounts, Collator, CountingCollator, ViewPrompt
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.training.batching.chunking import gradient_cache, memory_plan
from simcse_kit.training.batching.recompute import recompute_activations, wants_recompute
from simcse_kit.training.callbacks import (
    MethodState,
    MetricsFile,
    ProgressBar,
    StepFlow,
    Trace,
    as_callback,
)
from simcse_kit.training.compilation import compile_layers
from simcse_kit.training.devices import use_deterministic_operators
from simcse_kit.training.layer_rates import freeze_weights
from simcse_kit.training.measurements import Measurements
from simcse_kit.training.mlm_proposals import Proposals
from simcse_kit.training.monitor.collapse import CollapseMonitor, Facts
from simcse_kit.training.monitor.score_watch import ScoreWatch
from simcse_kit.training.plan import RunPlan
from simcse_kit.training.scorers import scorer, trace_probe
from simcse_kit.training.start import Start, load_start
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
        watch: early stopping; None if nothing is evaluated.
        start: the encoder that training starts from.
        sentences_per_step: sentences of an optimizer step.
    """

    plan: RunPlan
    method: Method
    trainer: ContrastiveTrainer
    counts: BatchCounts
    monitor: CollapseMonitor | None
    watch: ScoreWatch | None
    start: Start
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
    method, start, targets = _method(plan, processes)
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
    score_of = partial(scorer, plan, collator, cache, length)
    trainer = ContrastiveTrainer(
        method,
        arguments,
        rows=plan.rows,
        collator=counting,
        measurements=Measurements(
            scorer=score_of(),
            probe=trace_probe(plan, length),
            reference_loss=plan.contrast.reference_loss,
            sentences_per_step=per_step,
            start_scorer=score_of(start.on(arguments.device)) if start.altered else None,
        ),
        cache=cache,
        processes=processes,
    )
    trainer.order = plan.order
    if _collates_ahead(plan):
        trainer.collate_ahead()
    watch = _score_watch(plan)
    monitor = _add_callbacks(trainer, plan, method, watch, writes=processes.first)
    for callback in added:
        trainer.add_callback(callback)
    return Build(
        plan=plan,
        method=method,
        trainer=trainer,
        counts=counting.counts,
        monitor=monitor,
        watch=watch,
        start=start,
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


def _method(plan: RunPlan, processes: Processes) -> tuple[Method, Start, Targets | None]:
    """Load the encoder and construct the method.

    Returns:
        The method, what it starts from, and the vectors of its teachers.
    """
    config = plan.config
    if config.training.deterministic:
        use_deterministic_operators()
    # New weights, such as those of a head, depend on the seed too.
    transformers.set_seed(config.training.seed)
    encoder = load_start(config.model)  # the trainer moves the method to its device
    encoder.require_weights()
    assert encoder.source is not None
    files = fingerprint(encoder.source)
    recipe = (encoder.pooling, encoder.template, encoder.head, encoder.prompt)
    plan.prompts.give_to(encoder)
    targets = targets_of(plan, encoder, processes)
    if plan.augment is not None and plan.augment.needs_model:
        plan.augment.use(Proposals.of(encoder, plan.arguments.device))
    if config.training.freeze:
        freeze_weights(encoder, config.training.freeze)
    method = plan.method(encoder, plan.options).train()
    if not any(weight.requires_grad for weight in encoder.parameters()):
        raise ConfigError(
            f"training.freeze = {config.training.freeze} leaves nothing of the encoder to train; "
            "leave the highest layer out of it"
        )
    altered = recipe != (encoder.pooling, encoder.template, encoder.head, encoder.prompt)
    altered |= config.model.pooling is not None  # perhaps not the model's own
    recompute = wants_recompute(config)
    if recompute is not None:
        recompute_activations(method, recompute)
    if config.training.compile:
        compile_layers(method)
    return method, Start(config.model, files, altered), targets


def _collator(plan: RunPlan, method: Method, max_length: int, targets: Targets | None) -> Collator:
    encoder, prompts = method.encoder, plan.prompts
    # A prompt of all columns is the encoder's own.
    own = "" if prompts.differ else None

    def tokenize(texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encoder.tokenize(texts, max_length=max_length, prompt=own)

    def prompt_of(view: int) -> ViewPrompt:
        text = prompts.texts[view]
        before = encoder.tokenization.prompt_length(text)
        return ViewPrompt(text, before, len(encoder.tokenize([""], prompt=text)[0][0]))

    return Collator(
        tokenize,
        encoder.tokenizer.pad_token_id,
        plan.views,
        plan.augment,
        unknown_id=encoder.tokenizer.unk_token_id,
        bare=tokenize([""])[0][0],
        label_scale=plan.label_scale,
        targets=targets,
        prompts=tuple(map(prompt_of, plan.views)) if prompts.differ else (),
    )


def _sample(plan: RunPlan, collator: Collator) -> Batch:
    """Collate rows from the whole corpus, at equal distances, as one batch."""
    count = min(len(plan.rows), len(plan.corpus.sampled))
    numbers = range(0, count, max(1, count // _SAMPLED))[:_SAMPLED]
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


def _add_callbacks(
    trainer: ContrastiveTrainer,
    plan: RunPlan,
    method: Method,
    watch: ScoreWatch | None,
    *,
    writes: bool,
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
    if watch is not None:
        callbacks.append(watch)
    callbacks.append(StepFlow(None if measured.scorer is None else trainer.evaluate))
    for callback in callbacks:
        trainer.add_callback(callback)
    return monitor


def _score_watch(plan: RunPlan) -> ScoreWatch | None:
    if plan.score_name is None:
        return None
    return ScoreWatch(
        plan.score_name,
        plan.config.evaluation.every,
        plan.config.training.patience,
        start_counts=plan.start_counts,
    )


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
