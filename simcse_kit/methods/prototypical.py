"""Prototypical contrastive learning, PCL (arXiv 2005.04966)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from simcse_kit.encoder.inference import evaluation_mode
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.prototypes import concentrations, proto_nce, spherical_kmeans
from simcse_kit.losses.similarity import cosine_matrix, unit_rows
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.heads import relu_layers
from simcse_kit.methods.common.momentum import Momentum
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.methods.common.two_towers import embed_with_two
from simcse_kit.utils.host_copies import host_copy, overwrite

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["PrototypicalConfig", "PrototypicalContrast", "one_cluster_a_text"]

# Keys needed for a meaningful centre: faiss warns below 39, the paper allows 10.
_KEYS_A_CLUSTER = 10
_QUERY, _KEY = 0, 1


class PrototypicalConfig(DropoutConfig):
    """Options of PCL, with the paper's defaults except those that depend on its corpus."""

    temperature: float = Field(
        default=0.1, gt=0, description="tau of InfoNCE, and the mean concentration of prototypes"
    )
    queue_size: int = Field(
        default=16384,
        ge=1,
        description="keys that are clustered and used as negatives, as in MoCo",
    )
    clusters: list[int] = Field(
        default=[320, 640, 1280],
        min_length=1,
        validate_default=True,
        description="number of clusters of each clustering (paper: 25, 50 and 100 thousand for "
        "1.28 million images, the same ratio)",
    )
    every: int = Field(default=500, ge=1, description="steps between clusterings (paper: an epoch)")
    warmup: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the training with InfoNCE alone (paper: 20 of 200 epochs)",
    )
    mates: Literal["masked", "negatives"] = Field(
        default="masked",
        description="sentences of one cluster: left out of each other's negatives, or kept",
    )
    iterations: int = Field(default=20, ge=1, description="maximum number of k-means iterations")
    smoothing: float = Field(
        default=10.0, gt=0, description="smoothing parameter alpha of the concentration"
    )
    momentum: float = Field(
        default=0.999,
        ge=0,
        le=1,
        description="share of weights that the momentum encoder keeps",
    )
    dim: int = Field(default=128, ge=1, description="width of queries, keys and prototypes")

    @field_validator("clusters")
    @classmethod
    def _enough_keys(cls, clusters: list[int], info: ValidationInfo) -> list[int]:
        if min(clusters) < 2:
            raise ValueError("every clustering needs 2 clusters or more")
        wanted, size = _KEYS_A_CLUSTER * max(clusters), info.data.get("queue_size")
        if size is not None and size < wanted:
            raise ValueError(
                f"{max(clusters)} clusters need a queue of {wanted} keys or more and "
                f"method.queue_size is {size}; enlarge it or ask for fewer clusters"
            )
        return clusters


class Clustering(nn.Module):
    """The prototypes of one clustering, as buffers of the checkpoint.

    Args:
        clusters: number of prototypes.
        dim: width of a prototype.
    """

    centres: Tensor
    concentration: Tensor

    def __init__(self, clusters: int, dim: int):
        super().__init__()
        self.register_buffer("centres", torch.zeros(clusters, dim))
        self.register_buffer("concentration", torch.ones(clusters))

    def nearest(self, keys: Tensor) -> Tensor:
        """Return (n,), the number of the nearest prototype of each of (n, d) keys."""
        return cosine_matrix(keys, self.centres).argmax(dim=1)


class PrototypicalContrast(Method):
    """MoCo with an additional attraction of each query to the prototype of its cluster.

    E-step, every ``every`` steps: the keys in the queue are clustered by k-means, once for each
    number of clusters. M-step: InfoNCE plus the mean ProtoNCE over the clusterings (equation 11 of
    arXiv 2005.04966). The cluster of a sentence is the cluster of its key.

    Sentences of one cluster (of the clustering with the most prototypes) are not used as negatives
    of each other, so that two sentences about cats in one batch are not pushed apart. The paper
    keeps them: ``mates = "negatives"``.

    Deviations: the paper clusters the keys of its whole corpus at each epoch; here the newest
    ``queue_size`` keys are clustered, since a corpus of text is read once or twice. The keys of
    the other rows are negatives too, since the queue starts empty. k-means uses the cosine. All
    prototypes are negatives of a query, while the authors sample some of them:
    https://github.com/salesforce/PCL/blob/964da1fb7c0546e8ce55627fa3c0debde4b7e456/pcl/builder.py

    Examples:
        >>> PrototypicalConfig(clusters=[8, 16], queue_size=160).mates
        'masked'
    """

    name = "prototypical"
    paper = Paper(
        "Prototypical Contrastive Learning of Unsupervised Representations", "2005.04966", 2020
    )
    reads = ("texts", "pairs")
    loss_changes_with_state = True
    Config = PrototypicalConfig

    options: PrototypicalConfig
    steps: Tensor
    clustered: Tensor

    def __init__(self, encoder: SentenceEncoder, config: PrototypicalConfig):
        super().__init__(encoder, config)
        width = encoder.embedding_dim
        self.head = relu_layers([width, width, config.dim])
        self.momentum = Momentum(self._live())
        self.queue = KeyQueue(config.queue_size, config.dim)
        self.clusterings = nn.ModuleList(Clustering(k, config.dim) for k in config.clusters)
        # The number of steps seeds k-means, so it is part of the state.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("clustered", torch.zeros((), dtype=torch.bool))

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, dim): keys with the momentum encoder and head, without gradient."""

        def query(ids: Tensor, mask: Tensor) -> Tensor:
            embeddings: Tensor = self.head(self.encoder(ids, mask))
            return embeddings

        @torch.no_grad()
        def key(ids: Tensor, mask: Tensor) -> Tensor:
            encoder, head = cast(nn.ModuleList, self.momentum.copy)
            # Without dropout, so that the cluster of a sentence is deterministic.
            with evaluation_mode(self.momentum.copy):
                embeddings: Tensor = head(encoder(ids, mask))
            return embeddings

        return embed_with_two(input_ids, attention_mask, views, query, key, others=_KEY)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute InfoNCE of queries and keys (B, 2, dim), plus ProtoNCE once prototypes exist.

        Logs ``contrastive_loss`` (InfoNCE alone), ``positive_cosine``, ``accuracy``, ``queue``,
        ``ln_batch`` of all candidates and, with prototypes, ``prototype_loss`` and
        ``prototype_accuracy``, the share of queries nearest to the prototype of their key.

        Raises:
            ConfigError: the batch has no negatives.
        """
        wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        queries, keys = wide[:, _QUERY], wide[:, _KEY].detach()
        earlier, earlier_texts = self.queue.contents()
        query_ids, key_ids, queue_ids = self._identities(keys, earlier, batch, earlier_texts)
        terms = info_nce(
            ContrastiveBatch(
                queries,
                keys,
                temperature=self.options.temperature,
                anchor_ids=query_ids,
                positive_ids=key_ids,
                queue=earlier,
                queue_ids=queue_ids,
            )
        )
        logs = terms.logs() | {
            "queue": float(len(earlier)),
            "ln_batch": math.log(len(keys) + len(earlier)),
        }
        loss = terms.loss
        if host_copy(self.clustered):
            parts, hits = [], []
            for clustering in self._clusterings():
                own = clustering.nearest(keys)
                parts.append(proto_nce(queries, clustering.centres, clustering.concentration, own))
                hits.append((clustering.nearest(queries.detach()) == own).float().mean())
            prototype_loss = torch.stack(parts).mean()
            logs["prototype_loss"] = prototype_loss.detach()
            logs["prototype_accuracy"] = torch.stack(hits).mean()
            loss = loss + prototype_loss
        # Skip held-out rows, whose loss is computed without gradients.
        if self.training and torch.is_grad_enabled():
            # Unit vectors, because these are clustered.
            self.queue.push(unit_rows(keys), batch.text_ids[:, _KEY])
        return MethodOutput(loss=loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Update the momentum encoder and the queue, and cluster every ``every`` steps."""
        self.momentum.follow(self._live(), self.options.momentum)
        self.queue.advance()
        steps = host_copy(self.steps) + 1
        overwrite(self.steps, steps)
        enough = len(self.queue) >= _KEYS_A_CLUSTER * max(self.options.clusters)
        if enough and progress >= self.options.warmup and steps % self.options.every == 0:
            self._cluster(int(steps))

    def _live(self) -> nn.ModuleList:
        """Return the modules that the momentum encoder follows.

        As an attribute, this list would register the weights a second time.
        """
        return nn.ModuleList([self.encoder, self.head])

    def _clusterings(self) -> list[Clustering]:
        return [cast(Clustering, part) for part in self.clusterings]

    def _cluster(self, steps: int) -> None:
        # k-means waits for the device in every iteration, which happens in few steps only.
        keys, _ = self.queue.contents()
        for number, clustering in enumerate(self._clusterings()):
            seed = steps * len(self.clusterings) + number
            centres, nearest = spherical_kmeans(
                keys,
                len(clustering.centres),
                generator=torch.Generator().manual_seed(seed),
                iterations=self.options.iterations,
            )
            spread = concentrations(
                keys,
                centres,
                nearest,
                temperature=self.options.temperature,
                smoothing=self.options.smoothing,
            )
            clustering.centres.copy_(centres)
            clustering.concentration.copy_(spread)
        overwrite(self.clustered, torch.tensor(True))

    def _identities(
        self, keys: Tensor, earlier: Tensor, batch: Batch, earlier_texts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ids of queries, keys and queue, equal for rows that are not negatives."""
        query_texts, key_texts = batch.text_ids[:, _QUERY], batch.text_ids[:, _KEY]
        if not host_copy(self.clustered) or self.options.mates == "negatives":
            return query_texts, key_texts, earlier_texts
        finest = max(self._clusterings(), key=lambda part: len(part.centres))
        own, older = finest.nearest(keys), finest.nearest(earlier)
        # The cluster of a query is that of its key, even if their texts differ.
        same = one_cluster_a_text(
            torch.cat([query_texts, key_texts, earlier_texts]), torch.cat([own, own, older])
        )
        rows = len(keys)
        return same[:rows], same[rows : 2 * rows], same[2 * rows :]


def one_cluster_a_text(texts: Tensor, nearest: Tensor) -> Tensor:
    """Return one cluster for each text: the lowest one if its copies have several.

    Copies of a text can have different clusters, because keys change while they are in the queue
    and a query has the cluster of its key. They must still not be negatives of each other.

    Args:
        texts: (n,) int64, ids of the texts.
        nearest: (n,) int64, the cluster of each row.

    Returns:
        (n,) int64.
    """
    # The first position of a text among the sorted ones serves as its number.
    number = torch.searchsorted(texts.sort().values, texts)
    lowest = torch.zeros_like(nearest)
    return lowest.scatter_reduce(0, number, nearest, "amin", include_self=False)[number]
