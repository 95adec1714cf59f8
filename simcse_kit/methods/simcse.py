"""SimCSE: contrastive learning from dropout or from labelled pairs (arXiv 2104.08821)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import Dropout, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.common.masking import mask_tokens, masked_lm_loss, padded_mask
from simcse_kit.methods.common.objective import (
    ObjectiveConfig,
    ObjectiveLoss,
    check_objective_data,
    unused_in_objective,
)

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SimCSE", "SimCSEConfig"]


class SimCSEConfig(ObjectiveConfig):
    """Options of SimCSE, with the paper's defaults for the unsupervised setting."""

    head: Literal["mlp", "none"] = Field(
        default="mlp", description="layer between encoder and loss: linear + tanh, or none"
    )
    mlp_only_train: bool = Field(
        default=True,
        description="drop the head after training (paper: true for texts, false for triplets)",
    )
    mlm_weight: float = Field(
        default=0.0,
        ge=0,
        description="lambda, weight of the masked-language-model loss (paper: 0.1)",
    )
    mlm_probability: float = Field(
        default=0.15, gt=0, le=1, description="share of the tokens that MLM predicts"
    )
    dropout: Dropout = None

    @model_validator(mode="after")
    def _prefixes_are_kept(self) -> SimCSEConfig:
        if self.matryoshka and self.head == "mlp" and self.mlp_only_train:
            raise ConfigError(
                f"method.matryoshka = {self.matryoshka} would train prefixes of the head, which "
                "is dropped after training; set method.mlp_only_train to false or method.head to "
                "'none'"
            )
        return self

    def check_data(self, data: DataSpec) -> None:
        """Refuse data that the objective cannot use."""
        check_objective_data(self, data.kind)

    def chunking_obstacle(self) -> str | None:
        """Refuse chunks with the MLM loss, which has a forward pass of its own."""
        if not self.mlm_weight:
            return None
        return (
            f"method.mlm_weight = {self.mlm_weight} adds a loss of the token states, not of the "
            "embeddings"
        )

    def unused(self, data: DataSpec) -> list[str]:
        """Report options that the objective, the head or the MLM loss does not take."""
        found = unused_in_objective(self, data.kind)
        if not self.mlm_weight:
            found += inert(self, "mlm_probability", because="method.mlm_weight is 0")
        if self.head == "none":
            found += inert(self, "mlp_only_train", because="method.head is 'none'")
        return found


class SimCSE(Method):
    """Contrast of two views of a sentence with the other sentences of the batch.

    For data of kind ``texts``, a sentence is its own positive under another dropout mask
    (equation 4 of arXiv 2104.08821): both views go through the encoder in one forward pass of 2B
    rows, and dropout is drawn for every element. For ``pairs`` and ``triplets``, the positive and
    the hard negatives come from the data (equation 5).

    With ``mlp_only_train`` the head belongs to the method and is dropped when the encoder is
    saved; without it the head is installed in the encoder. A head that the encoder already has
    stays part of the encoder: it is trained further, never replaced. The head is that of
    https://github.com/princeton-nlp/SimCSE/blob/206d7aef05aeadc8e6d354dfc8656c9e9521cc64/simcse/models.py#L19-L33

    Raises:
        ModelError: ``mlm_weight`` is above 0 and the model has no MLM head or no mask token.

    Examples:
        >>> str(SimCSEConfig().contrast(DataSpec("triplets", 1), 64))
        '127 negatives per anchor'
    """

    name = "simcse"
    paper = Paper("SimCSE: Simple Contrastive Learning of Sentence Embeddings", "2104.08821", 2021)
    reads = ("texts", "pairs", "triplets")
    Config = SimCSEConfig

    options: SimCSEConfig

    def __init__(self, encoder: SentenceEncoder, config: SimCSEConfig):
        super().__init__(encoder, config)
        self.head: nn.Module | None = None
        if config.head == "mlp" and config.mlp_only_train:
            self.head = mlp_head(encoder.embedding_dim)
        elif config.head == "mlp" and encoder.head is None:
            encoder.set_head(mlp_head(encoder.embedding_dim))
        self.objective = ObjectiveLoss(config, encoder)
        self.mlm: nn.Module | None = None
        if config.mlm_weight > 0:
            if encoder.tokenizer.mask_token_id is None:
                raise ModelError(
                    f"method.mlm_weight = {config.mlm_weight} needs a mask token and the tokenizer "
                    "has none; set method.mlm_weight to 0 or use a masked language model"
                )
            self.mlm = encoder.masked_lm()

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d): the encoder, then the head if the method has one."""
        embeddings = super().embed(input_ids, attention_mask, views)
        return embeddings if self.head is None else self.head(embeddings)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute the objective of anchors, positives and hard negatives (B, V, d), and MLM.

        Logs the numbers of :class:`~simcse_kit.methods.common.objective.ObjectiveLoss` and, with
        ``mlm_weight``, the unweighted ``mlm_loss``.

        Raises:
            ConfigError: the batch has no negatives, or shapes that do not match.
        """
        output = self.objective(embeddings, batch)
        loss: Tensor = output.loss
        logs: dict[str, float | Tensor] = output.logs
        if self.mlm is not None:
            # After the contrastive forward pass, whose dropout must not depend on MLM.
            mlm_loss = self._mlm_loss(*batch.rows(), batch.view_mask.flatten())
            logs["mlm_loss"] = mlm_loss.detach()
            loss = loss + self.options.mlm_weight * mlm_loss
        return MethodOutput(loss=loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Clamp a learned temperature to its bounds."""
        self.objective.after_step()

    def _mlm_loss(self, input_ids: Tensor, attention_mask: Tensor, present: Tensor) -> Tensor:
        """Mask every view independently and predict the masked tokens, without dummy rows."""
        assert self.mlm is not None
        tokenizer = self.encoder.tokenizer
        masked_ids, chosen = mask_tokens(
            input_ids,
            attention_mask * present.unsqueeze(1),
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=len(tokenizer),
            probability=self.options.mlm_probability,
        )
        output = self.mlm(
            input_ids=masked_ids, attention_mask=padded_mask(self.mlm, attention_mask)
        )
        return masked_lm_loss(output.logits, input_ids, chosen)
