"""Scores that choose the checkpoint.

Spearman on graded pairs; or, without labels, the loss of held-out rows, their alignment and
uniformity, or all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from simcse_kit.data.collate import Collated
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.training.monitor.geometry_probe import PREFIX, Probe

__all__ = [
    "BOTH",
    "LOSS",
    "SELECTIONS",
    "SHAPE",
    "SPEARMAN",
    "UNDEFINED",
    "Forward",
    "Scorer",
    "batches_of",
    "dev_scorer",
    "held_out_loss",
    "improves",
    "in_one_piece",
    "joined",
    "loss_scorer",
    "shape_scorer",
]

SPEARMAN, LOSS = "dev_spearman", "dev_loss"
SHAPE, BOTH = "dev_alignment_uniformity", "dev_loss_alignment_uniformity"

UNDEFINED = {
    SPEARMAN: "all cosines of the dev pairs are equal",
    SHAPE: "a vector of a held-out row is zero or not finite",
    BOTH: "a vector of a held-out row is zero or not finite",
}
"""Metric -> the reason for which a scorer leaves it out."""

SELECTIONS = {"dev": SPEARMAN, "loss": LOSS, "alignment_uniformity": SHAPE, "both": BOTH}
"""``evaluation.select`` -> the metric that chooses; lower is better, except for ``dev``."""


def improves(name: str, score: float, best: float | None) -> bool:
    """Whether a score is better than the best one before it; any score is better than None."""
    if best is None:
        return True
    return score > best if name == SPEARMAN else score < best


Scorer = Callable[[Method], dict[str, float]]
"""Function that computes the dev metrics of a method; undefined metrics are left out."""

EncoderOf = Callable[[Method], SentenceEncoder]
"""Function that returns the encoder to score."""

Forward = Callable[[Method, Batch], MethodOutput]
"""Function that computes the loss of a batch."""


def in_one_piece(method: Method, batch: Batch) -> MethodOutput:
    """Compute the loss with all rows in one forward pass."""
    output: MethodOutput = method(**vars(batch))
    return output


def trained_encoder(method: Method) -> SentenceEncoder:
    """Return the encoder that the method trains."""
    return method.encoder


def dev_scorer(dev: DevSet, encoder_of: EncoderOf = trained_encoder) -> Scorer:
    """Score an encoder by graded pairs: ``dev_spearman`` and, if defined, the geometry."""

    def score(method: Method) -> dict[str, float]:
        scores = {f"dev_{key}": value for key, value in dev.score(encoder_of(method)).items()}
        # Alignment is NaN without positives, Spearman if all cosines are equal.
        return {key: value for key, value in scores.items() if math.isfinite(value)}

    return score


def shape_scorer(probe: Probe, encoder_of: EncoderOf = trained_encoder) -> Scorer:
    """Score by alignment plus uniformity of held-out rows: ``dev_alignment_uniformity``.

    The sum decreases in the direction in which encoders improve in figure 2 of arXiv 2104.08821;
    Wang and Isola (arXiv 2005.10242) train on it. It is 0 for a collapsed encoder and negative for
    a useful one.
    """

    def score(method: Method) -> dict[str, float]:
        found = probe.measure(encoder_of(method))
        names = (f"{PREFIX}alignment", f"{PREFIX}uniformity")
        # The probe returns nothing if vectors are zero or not finite.
        return {SHAPE: sum(found[name] for name in names)} if found else {}

    return score


def joined(scorers: Sequence[Scorer]) -> Scorer:
    """Combine several scorers, and add ``dev_loss_alignment_uniformity`` if it is defined.

    That sum uses the loss and the geometry without weights: they are natural logarithms and squared
    distances of order 1.
    """

    def score(method: Method) -> dict[str, float]:
        found = {key: value for scorer in scorers for key, value in scorer(method).items()}
        if LOSS in found and SHAPE in found:
            found[BOTH] = found[LOSS] + found[SHAPE]
        return found

    return score


def batches_of(
    rows: Sequence[Example], size: int, collator: Callable[[Sequence[Example]], Collated]
) -> list[Batch]:
    """Collate held-out rows into full batches of at most ``size`` rows, and at least two."""
    size = min(size, len(rows))
    if size < 2:
        return []
    starts = range(0, len(rows) - size + 1, size)
    return [Batch(**collator(rows[start : start + size])) for start in starts]


def loss_scorer(batches: Sequence[Batch], seed: int, forward: Forward = in_one_piece) -> Scorer:
    """Score by the loss of held-out rows: ``dev_loss``."""
    return lambda method: {LOSS: held_out_loss(method, batches, seed, forward)}


def held_out_loss(
    method: Method, batches: Sequence[Batch], seed: int, forward: Forward = in_one_piece
) -> float:
    """Compute the mean loss over fixed batches, with the dropout of training drawn from ``seed``.

    Without dropout the two views of unsupervised SimCSE would be equal. The random state is
    restored, so that an evaluation does not change the training.

    Raises:
        ModelError: the loss is not finite.
    """
    was_training = method.training
    method.train()
    device = next(method.parameters()).device
    total = 0.0
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for batch in batches:
            total += float(forward(method, batch.to(device)).loss)
    method.train(was_training)
    if not math.isfinite(total):
        raise ModelError(
            f"the held-out loss is {total}: training has diverged; lower training.learning_rate"
        )
    return total / len(batches)
