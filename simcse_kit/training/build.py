"""From a prepared run and its method to what trains it: collator, scorers, probe, trainer."""

from __future__ import annotations

from collections.abc import Sequence

from simcse_kit.data.collate import Collator
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import negatives_text
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.subset import RowSubset
from simcse_kit.training.callbacks import MethodState, MetricsFile, ProgressBar, StepFlow, Trace
from simcse_kit.training.monitor.collapse import Doctor, Facts
from simcse_kit.training.monitor.geometry_probe import Probe
from simcse_kit.training.plan import Prepared
from simcse_kit.training.selection import (
    BOTH,
    SHAPE,
    batches_of,
    dev_scorer,
    in_one_piece,
    joined,
    loss_scorer,
    shape_scorer,
)
from simcse_kit.training.state.output_dir import METRICS
from simcse_kit.training.trainer import ContrastiveTrainer
from simcse_kit.utils.distributed import Processes

__all__ = ["assembled_trainer", "collator_of", "longest", "sample"]

# Rows that a memory plan looks at.
_SAMPLED = 256
# Rows whose anchors are counted once a collapse needs a cause.
_FOR_DUPLICATES = 10_000


def longest(prepared: Prepared, method: Method) -> int:
    """Most tokens of a sentence in training."""
    return min(prepared.config.data.max_length, method.encoder.max_length)


def collator_of(prepared: Prepared, method: Method) -> Collator:
    """From rows to batches, with the method's own tokenizer."""
    encoder = method.encoder
    length = longest(prepared, method)

    def tokenize(texts: Sequence[str]) -> tuple[list[list[int]], int]:
        return encoder.tokenize(texts, max_length=length)

    return Collator(
        tokenize,
        encoder.tokenizer.pad_token_id,
        prepared.views,
        prepared.augment,
        unknown_id=encoder.tokenizer.unk_token_id,
        bare=tokenize([""])[0][0],
    )


def sample(rows: RowSubset, collator: Collator) -> Batch:
    """Some rows from all over the corpus, as one batch."""
    apart = max(1, len(rows) // _SAMPLED)
    return Batch(**collator(rows.__getitems__(range(0, len(rows), apart)[:_SAMPLED])))


def assembled_trainer(
    prepared: Prepared,
    method: Method,
    collator: Collator,
    uncounted: Collator,
    cache: GradientCache | None,
    processes: Processes,
) -> tuple[ContrastiveTrainer, int, Doctor | None]:
    """The trainer, the sentences of an optimizer step, and who watches for collapse."""
    config, corpus = prepared.config, prepared.corpus
    training = config.training
    scorers = []
    if prepared.dev is not None:
        scorers.append(dev_scorer(prepared.dev))
    if prepared.kept_back:
        batches = batches_of(prepared.kept_back, max(2, training.batch_size), uncounted)
        scorers.append(loss_scorer(batches, training.seed, cache or in_one_piece))
    if prepared.score_name in (SHAPE, BOTH):
        scorers.append(shape_scorer(_held_out_probe(prepared, method)))
    scorer = joined(scorers) if scorers else None
    ln_batch = method.loss_reference(training.batch_size, corpus.kind, corpus.negatives)
    negatives = negatives_text(
        prepared.method, prepared.options, training.batch_size, corpus.kind, corpus.negatives
    )
    views = len(method.views(corpus.kind, corpus.negatives))
    per_step = training.batch_size * views * prepared.accumulation
    probe = _probe(prepared, method) if config.evaluation.trace_every else None
    trainer = ContrastiveTrainer(
        method,
        prepared.arguments,
        rows=prepared.rows,
        collator=collator,
        evaluate_method=scorer,
        ln_batch=ln_batch,
        sentences_per_step=per_step,
        cache=cache,
        trace_method=None if probe is None else lambda trained: probe.measure(trained.encoder),
        callbacks=[
            MethodState(method),
            *([MetricsFile(prepared.folder / METRICS)] if processes.first else []),
            *([ProgressBar(per_step, negatives)] if processes.first else []),
        ],
        processes=processes,
    )
    # After the metrics file, which begins empty.
    doctor = None
    if probe is not None:
        doctor = Doctor(
            config.evaluation.on_collapse, lambda: _facts(prepared, method), trainer.go_back
        )
        trainer.add_callback(doctor)
        trainer.add_callback(Trace(config.evaluation.trace_every, trainer.trace))
    trainer.add_callback(StepFlow(None if scorer is None else trainer.evaluate))
    return trainer, per_step, doctor


def _probe(prepared: Prepared, method: Method) -> Probe | None:
    """What the trace is measured on: the dev set, or the held-out rows."""
    seed, length = prepared.config.training.seed, longest(prepared, method)
    if prepared.dev is not None:
        return Probe.of_pairs(prepared.dev.pairs, seed, length)
    return Probe.of_rows(prepared.kept_back, prepared.corpus.kind, seed, length)


def _held_out_probe(prepared: Prepared, method: Method) -> Probe:
    """All held-out rows, for a choice by their alignment and uniformity."""
    count = len(prepared.kept_back)
    probe = Probe.of_rows(
        prepared.kept_back,
        prepared.corpus.kind,
        prepared.config.training.seed,
        longest(prepared, method),
        sentences=count,
        pairs=count,
    )
    if probe is None:
        raise ConfigError(
            f"the {count} held-out rows have one and the same text, which has no uniformity; "
            "choose with evaluation.select = 'loss'"
        )
    return probe


def _facts(prepared: Prepared, method: Method) -> Facts:
    corpus, training = prepared.corpus, prepared.config.training
    rows = prepared.rows.__getitems__(range(min(len(prepared.rows), _FOR_DUPLICATES)))
    anchors = [row.texts[0] for row in rows]
    return Facts(
        views_are_equal=method.views_are_equal,
        negatives=method.negatives_per_anchor(training.batch_size, corpus.kind, corpus.negatives),
        needs_negatives=method.needs_negatives,
        temperature=getattr(prepared.options, "temperature", None),
        learning_rate=training.learning_rate,
        duplicates=1 - len(set(anchors)) / len(anchors),
    )
