"""What a run is scored and traced by."""

from __future__ import annotations

from dataclasses import replace

from simcse_kit.data.collate import Collator
from simcse_kit.errors import ConfigError
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.monitor.geometry_probe import Probe
from simcse_kit.training.plan import RunPlan
from simcse_kit.training.selection import (
    BOTH,
    SHAPE,
    EncoderOf,
    Scorer,
    batches_of,
    dev_scorer,
    in_one_piece,
    joined,
    loss_scorer,
    shape_scorer,
    trained_encoder,
)

__all__ = ["scorer", "trace_probe"]


def scorer(
    plan: RunPlan,
    collator: Collator,
    cache: GradientCache | None,
    max_length: int,
    encoder_of: EncoderOf = trained_encoder,
) -> Scorer | None:
    """Combine everything that the dev metrics come from; None if there is nothing."""
    training = plan.config.training
    scorers = []
    if plan.dev is not None:
        scorers.append(dev_scorer(plan.dev, encoder_of))
    if plan.held_out:
        batches = batches_of(plan.held_out, max(2, training.batch_size), collator)
        scorers.append(loss_scorer(batches, training.seed, cache or in_one_piece))
    if plan.score_name in (SHAPE, BOTH):
        scorers.append(shape_scorer(_held_out_probe(plan, max_length), encoder_of))
    return joined(scorers) if scorers else None


def trace_probe(plan: RunPlan, max_length: int) -> Probe | None:
    """Choose the sentences of the trace: from the dev set, or else from the held-out rows."""
    if not plan.config.evaluation.trace_every:
        return None
    seed = plan.config.training.seed
    if plan.dev is not None:
        return Probe.of_pairs(plan.dev.pairs, seed, max_length)
    probe = Probe.of_rows(plan.held_out, plan.corpus.kind, seed, max_length)
    return _with_prompts(probe, plan)


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
    return _with_prompts(probe, plan) or probe


def _with_prompts(probe: Probe | None, plan: RunPlan) -> Probe | None:
    """Give the probe the prompts of anchors and positives, if they differ."""
    if probe is None or not plan.prompts.differ:
        return probe
    return replace(probe, prompts=plan.prompts.texts[:2])
