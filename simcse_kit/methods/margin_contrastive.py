"""Margin contrastive loss for labelled pairs (arXiv 1908.10084; Hadsell et al. 2006)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.losses.matryoshka import check_prefixes, prefix_losses
from simcse_kit.losses.pair_margin import margin_contrastive, pair_distance
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.utils.host_copies import host_copy, send

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["MarginContrastive", "MarginContrastiveConfig"]

logger = logging.getLogger(__name__)


class MarginContrastiveConfig(DropoutConfig):
    """Options of the margin contrastive loss of Hadsell et al. 2006."""

    needs_negatives = False

    margin: float = Field(
        default=1.0,
        gt=0,
        description="distance m above which dissimilar pairs have no loss; unit vectors have "
        "distances of 0 to 2",
    )
    form: Literal["distance", "squared"] = Field(
        default="distance",
        description="hinge of dissimilar pairs: distance = max(0, m - d)^2, squared = "
        "max(0, m - d^2)",
    )
    metric: Literal["euclidean", "cosine"] = Field(
        default="euclidean", description="distance d of unit vectors: euclidean, or 1 - cosine"
    )
    one_means: Literal["dissimilar", "similar"] = Field(
        default="dissimilar",
        description="meaning of label 1: dissimilar as Y in the paper, or similar as in paraphrase "
        "data",
    )
    threshold: float | None = Field(
        default=None,
        description="for graded labels: labels of at least this count as 1; unset: 0 and 1 only",
    )
    matryoshka: list[int] = Field(
        default=[],
        description="train these numbers of first dimensions at once, such as [64, 128, 256]",
    )

    @model_validator(mode="after")
    def _prefixes_can_be(self) -> MarginContrastiveConfig:
        if self.matryoshka:
            check_prefixes(self.matryoshka)
        return self

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels that are not finite and, without a threshold, labels other than 0 and 1."""
        graded = self.threshold is not None
        odd = labels[~(labels.isfinite() if graded else (labels == 0) | (labels == 1))]
        if len(odd):
            raise DataError(
                f"label {odd[0].item():g} is not {'a number' if graded else '0 or 1'}, as method "
                "'margin_contrastive' needs; correct it, or for grades use --method graded, or "
                "give the lowest grade of similar pairs, such as --set method.threshold=4 "
                "--set method.one_means=similar"
            )


class MarginContrastive(Method):
    """Margin loss that pulls similar pairs together and pushes dissimilar ones apart.

    ``L = (1-Y) d^2 + Y max(0, m-d)^2``, where **Y = 1 marks a dissimilar pair** (equation 4 of
    Hadsell et al. 2006 without its factor 1/2). Most paraphrase data has the opposite labels and
    needs ``one_means = "similar"``. Labels other than 0 and 1, such as the grades of STS, are
    refused unless ``threshold`` divides them: with ``one_means = "similar"`` and ``threshold = 4``,
    grades of 4 and more are similar.

    A pair of equal texts that is labelled dissimilar cannot be learned and is left out. The first
    one is logged, because it often means that ``one_means`` is wrong.

    Deviation: the distance is that of unit vectors, since cosines are used afterwards; the paper
    does not normalise.

    Raises:
        ConfigError: a Matryoshka prefix is longer than the embedding.

    Examples:
        >>> MarginContrastiveConfig(one_means="similar", threshold=4).margin
        1.0
    """

    name = "margin_contrastive"
    paper = Paper(
        "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks; the loss is that of "
        "Hadsell, Chopra & LeCun 2006, Dimensionality Reduction by Learning an Invariant Mapping",
        "1908.10084",
        2019,
    )
    reads = ("labelled",)
    Config = MarginContrastiveConfig

    options: MarginContrastiveConfig

    def __init__(self, encoder: SentenceEncoder, config: MarginContrastiveConfig):
        super().__init__(encoder, config)
        self._contradiction_logged = False
        if config.matryoshka:
            check_prefixes(config.matryoshka, width=encoder.embedding_dim)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the margin contrastive loss of (B, 2, d).

        Logs ``contrastive_loss``, and the mean distances ``similar_distance`` and
        ``dissimilar_distance``, each if the batch has such pairs.

        Raises:
            DataError: see :meth:`MarginContrastiveConfig.check_labels`.
            ConfigError: the data has no labels.
        """
        first, second = host_copy(batch.text_ids).unbind(1)
        labelled_different = self._different(batch.labels)
        contradictory = labelled_different & (first == second)
        self._log_contradiction(contradictory)
        apart = labelled_different & (first != second)
        device, options = embeddings.device, self.options
        different, contradiction = send(apart, device), send(contradictory, device)

        def compute(vectors: Tensor) -> Tensor:
            distances = pair_distance(vectors[:, 0], vectors[:, 1], options.metric)
            # A similar pair at distance 0 adds nothing.
            distances = distances.masked_fill(contradiction, 0)
            return margin_contrastive(
                distances, different, margin=options.margin, squared=options.form == "squared"
            )

        dims = options.matryoshka or [embeddings.shape[-1]]
        loss, _ = prefix_losses(compute, embeddings, dims)
        logs: dict[str, float | Tensor] = {"contrastive_loss": loss.detach()}
        with torch.no_grad():
            distances = pair_distance(embeddings[:, 0], embeddings[:, 1], options.metric)
            for sort, rows in (
                ("similar", ~labelled_different),
                ("dissimilar", apart),
            ):
                if rows.any():
                    chosen = send(rows.nonzero().squeeze(1), device)
                    logs[f"{sort}_distance"] = distances[chosen].mean()
        return MethodOutput(loss=loss, logs=logs)

    def _log_contradiction(self, contradiction: Tensor) -> None:
        if self._contradiction_logged or not contradiction.any():
            return
        self._contradiction_logged = True
        logger.warning(
            "a pair of equal texts is labelled dissimilar; such pairs are left out; "
            "if label %d means similar in your data, use --set method.one_means=%s",
            1 if self.options.one_means == "dissimilar" else 0,
            "similar" if self.options.one_means == "dissimilar" else "dissimilar",
        )

    def _different(self, labels: Tensor | None) -> Tensor:
        """Return (B,) bool on the host, Y of the formula."""
        if labels is None:
            raise ConfigError(
                f"method {self.name!r} needs a label in every row and the batch has none; "
                "give labelled data"
            )
        labels = host_copy(labels)
        self.options.check_labels(labels)
        cut = 1.0 if self.options.threshold is None else self.options.threshold
        ones = labels >= cut
        return ones if self.options.one_means == "dissimilar" else ~ones
