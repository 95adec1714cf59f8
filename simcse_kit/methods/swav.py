"""SwAV: swapped prediction of cluster assignments (arXiv 2006.09882)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from simcse_kit.losses.prototypes import sinkhorn, swapped_prediction
from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.utils.host_copies import host_copy, overwrite, reads_are_free

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SwAV", "SwAVConfig"]


class SwAVConfig(DropoutConfig):
    """Options of SwAV, with the paper's defaults."""

    needs_negatives = False

    prototypes: int = Field(default=3000, ge=2, description="K, number of clusters")
    temperature: float = Field(default=0.1, gt=0, description="temperature tau of the prediction")
    epsilon: float = Field(
        default=0.05,
        gt=0,
        description="softness of the assignment; near 0, one prototype per sentence",
    )
    iterations: int = Field(default=3, ge=1, description="iterations of Sinkhorn-Knopp")
    dim: int = Field(default=128, ge=1, description="width of features and prototypes")
    hidden: int = Field(default=2048, ge=1, description="width of the hidden layer of the head")
    frozen: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="share of the training with frozen prototypes (paper: one epoch)",
    )
    queue_size: int = Field(
        default=0,
        ge=0,
        description="features of earlier batches that take part in the assignment (paper: 3840 "
        "for batches of 256); 0 for no queue",
    )
    queue_start: float = Field(
        default=0.075,
        ge=0,
        le=1,
        description="share of the training after which the queue fills (paper: epoch 15 of 200)",
    )

    def unused(self, data: DataSpec) -> list[str]:
        """Report a start of the queue that does not exist."""
        if self.queue_size:
            return []
        return inert(self, "queue_start", because="method.queue_size is 0")


class SwAV(Method):
    """Prediction of the cluster assignment of one view from the other view, without negatives.

    Equations 1 and 2 of arXiv 2006.09882. For data of kind ``texts``, both views are the sentence
    under different dropout masks (the paper: crops of an image); for ``pairs``, anchor and
    positive. Equal embeddings are not a solution, since every prototype gets an equal part of the
    batch.

    In a batch much smaller than the number of prototypes, each prototype gets a small part of a
    sentence; use fewer prototypes, or a queue, as the paper does for small batches. The queue has
    one row of features for each view, is used when it is full, and takes part in the assignment
    alone, as ``train`` does in
    https://github.com/facebookresearch/swav/blob/04b8f4310a21ddd92af7e2b8f2ea2ef501ce7158/main_swav.py
    Multi-crop has no counterpart here.

    Examples:
        >>> SwAVConfig(queue_start=0.5).unused(DataSpec("texts"))
        ['method.queue_start = 0.5 has no effect, because method.queue_size is 0']
    """

    name = "swav"
    paper = Paper(
        "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
        "2006.09882",
        2020,
    )
    reads = ("texts", "pairs")
    Config = SwAVConfig

    options: SwAVConfig
    progress: Tensor

    def __init__(self, encoder: SentenceEncoder, config: SwAVConfig):
        super().__init__(encoder, config)
        sizes = [encoder.embedding_dim, config.hidden, config.dim]
        self.head = relu_layers(sizes, batch_norm=True)
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        self._normalise()
        views = 2 if config.queue_size else 0
        self.queues = nn.ModuleList(KeyQueue(config.queue_size, config.dim) for _ in range(views))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the swapped prediction of (B, 2, d).

        Logs ``contrastive_loss``; ``agreement``, the share of sentences with the same best
        prototype for both views; and ``prototypes_used``, the share of prototypes that are the best
        of a view.
        """
        rows = len(embeddings)
        features = unit_rows(self.head(embeddings.flatten(0, 1)))
        weight = self.prototypes.weight
        if self._frozen():
            weight = weight.detach()
        # TRAP: prototypes have length 1; normalising them again would change their gradient.
        with full_precision(features.device):
            scores = (features @ weight.to(features.dtype).T).view(rows, 2, -1)
        codes = [self._codes(scores[:, v], v) for v in range(2)]
        loss = swapped_prediction(
            scores[:, 0], scores[:, 1], *codes, temperature=self.options.temperature
        )
        # Not for held-out rows, whose loss is computed without gradient.
        if self.training and torch.is_grad_enabled() and self._queue_fills():
            for view, queue in enumerate(self._queues()):
                queue.push(features.view(rows, 2, -1)[:, view], batch.text_ids[:, view])
        best = scores.detach().argmax(dim=2)
        used = torch.zeros(self.options.prototypes, dtype=torch.bool, device=best.device)
        used = used.index_fill(0, best.flatten(), True).sum()
        logs: dict[str, float | Tensor] = {
            "contrastive_loss": loss.detach(),
            "agreement": (best[:, 0] == best[:, 1]).float().mean(),
            # In the precision of Python, unless the host would wait for the number.
            "prototypes_used": (int(used) if reads_are_free(used.device) else used)
            / self.options.prototypes,
        }
        return MethodOutput(loss=loss, logs=logs)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Normalise the prototypes, and add the features of the step to the queue."""
        # Frozen prototypes must not change at all, not even by rounding.
        if not self._frozen():
            self._normalise()
        for queue in self._queues():
            queue.advance()
        overwrite(self.progress, torch.tensor(progress, dtype=self.progress.dtype))

    def _codes(self, scores: Tensor, view: int) -> Tensor:
        rows = len(scores)
        features = self._queues()[view].contents()[0] if len(self.queues) else scores[:0]
        # A partly filled queue would change the weight of the batch at every step.
        if len(self.queues) and len(features) == self.options.queue_size:
            earlier = cosine_matrix(features, self.prototypes.weight.detach())
            scores = torch.cat([earlier.to(scores.dtype), scores.detach()])
        codes = sinkhorn(scores, epsilon=self.options.epsilon, iterations=self.options.iterations)
        return codes[-rows:]

    def _queues(self) -> list[KeyQueue]:
        return [cast(KeyQueue, queue) for queue in self.queues]

    def _frozen(self) -> bool:
        return float(host_copy(self.progress)) < self.options.frozen

    def _queue_fills(self) -> bool:
        return float(host_copy(self.progress)) >= self.options.queue_start

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.weight.copy_(unit_rows(self.prototypes.weight))
