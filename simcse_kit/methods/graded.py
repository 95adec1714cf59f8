"""Learning of graded pairs: two texts and a score of their similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.losses.angle import angle
from simcse_kit.losses.cosent import cosent
from simcse_kit.losses.cosine_regression import cosine_regression
from simcse_kit.losses.matryoshka import check_prefixes, prefix_losses
from simcse_kit.losses.similarity import pair_cosine
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig, inert
from simcse_kit.methods.common.contrast import DataSpec

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["Graded", "GradedConfig"]


class GradedConfig(DropoutConfig):
    """Options of the learning of graded pairs."""

    needs_negatives = False
    reads_scores: ClassVar[bool] = True

    objective: Literal["cosent", "angle", "cosine_regression"] = Field(
        default="cosent",
        description="cosent ranks the pairs of a batch by their cosines, angle (arXiv 2309.12871) "
        "by their angles in complex space; cosine_regression fits each cosine to the score",
    )
    temperature: float = Field(
        default=0.05,
        gt=0,
        description="divides the similarities in cosent and angle; 1/20 for the scale of 20 in "
        "CoSENT's code and sentence-transformers; AnglE's code has 1 for its angles",
    )
    matryoshka: list[int] = Field(
        default=[],
        description="train these numbers of first dimensions at once, such as [64, 128, 256]",
    )

    @model_validator(mode="after")
    def _prefixes_can_be(self) -> GradedConfig:
        if self.matryoshka:
            check_prefixes(self.matryoshka)
        return self

    def fewest_rows(self, data: DataSpec) -> int:
        """Return 2 if the loss compares the pairs of a batch."""
        return 1 if self.objective == "cosine_regression" else 2

    def check_labels(self, labels: Tensor) -> None:
        """Refuse scores that are not finite, and scores that are all equal."""
        odd = labels[~labels.isfinite()]
        if len(odd):
            raise DataError(f"score {odd[0].item():g} is not a finite number; correct it")
        if len(labels) and bool((labels == labels[0]).all()):
            raise DataError(
                f"all scores are {labels[0].item():g}, so no pair is more similar than another; "
                "give pairs with different scores or, if all pairs are similar, leave the scores "
                "out with --columns sentence1,sentence2 and use --method simcse"
            )

    def unused(self, data: DataSpec) -> list[str]:
        """Return a sentence if a temperature was set for the regression."""
        if self.objective != "cosine_regression":
            return []
        return inert(self, "temperature", because="cosine_regression compares cosines and scores")


class Graded(Method):
    """Learns to order or to predict the similarity of pairs, from scores.

    - ``cosent`` (Su 2022): of two pairs in a batch, the one with the higher score should have the
      higher cosine. Only the order of the scores counts.
    - ``angle`` (arXiv 2309.12871): the same with a similarity of angles in complex space.
    - ``cosine_regression`` (arXiv 1908.10084): the squared difference of cosine and score.

    Scores of any scale are mapped to 0 to 1 by ``data.scale``. A larger batch has more comparisons
    in ``cosent`` and ``angle``; gradient accumulation adds none.

    Deviation: a pair of two equal texts is never pushed apart, whatever its score.

    Raises:
        ConfigError: a Matryoshka prefix is longer than the embedding.

    Examples:
        >>> GradedConfig(objective="angle").temperature
        0.05
    """

    name = "graded"
    paper = Paper(
        "CoSENT (Su 2022, kexue.fm/archives/8847); AnglE-optimized Text Embeddings (arXiv "
        "2309.12871); Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        "1908.10084",
        2019,
    )
    reads = ("labelled",)
    Config = GradedConfig

    options: GradedConfig

    def __init__(self, encoder: SentenceEncoder, config: GradedConfig):
        super().__init__(encoder, config)
        if config.matryoshka:
            check_prefixes(config.matryoshka, width=encoder.embedding_dim)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the loss of (B, 2, d) and (B,) scores from 0 to 1.

        Logs ``mean_cosine``, and ``score_correlation``, the Pearson correlation of cosines and
        scores in the batch.

        Raises:
            ConfigError: the data has no scores.
        """
        scores = batch.labels
        if scores is None:
            raise ConfigError(
                f"method {self.name!r} needs a score in every row and the batch has none; give "
                "pairs with a column of scores"
            )
        equal = batch.text_ids[:, 0] == batch.text_ids[:, 1]
        objective, temperature = self.options.objective, self.options.temperature

        def compute(vectors: Tensor) -> Tensor:
            first, second = vectors[:, 0], vectors[:, 1]
            if objective == "angle":
                return angle(first, second, scores, temperature=temperature, equal=equal)
            cosines = pair_cosine(first, second)
            if objective == "cosent":
                return cosent(cosines, scores, temperature=temperature, equal=equal)
            return cosine_regression(cosines, scores, equal=equal)

        dims = self.options.matryoshka or [embeddings.shape[-1]]
        loss, _ = prefix_losses(compute, embeddings, dims)
        with torch.no_grad():
            cosines = pair_cosine(embeddings[:, 0], embeddings[:, 1])
            logs: dict[str, float | Tensor] = {
                "mean_cosine": cosines.mean(),
                "score_correlation": _correlation(cosines, scores.to(cosines.dtype)),
            }
        return MethodOutput(loss=loss, logs=logs)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Compute the Pearson correlation of (B,) numbers; 0 if one side does not vary."""
    return pair_cosine((first - first.mean()).unsqueeze(0), (second - second.mean()).unsqueeze(0))[
        0
    ]
