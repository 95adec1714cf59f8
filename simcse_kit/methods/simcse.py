"""SimCSE, unsupervised and supervised (arXiv 2104.08821)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import Dropout, MethodConfig, inert
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.heads import mlp_head
from simcse_kit.methods.common.masking import mask_tokens, masked_lm_loss
from simcse_kit.methods.common.objective import (
    ObjectiveConfig,
    ObjectiveLoss,
    check_objective_data,
    unused_in_objective,
)

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["SimCSE", "SimCSEConfig"]


class SimCSEConfig(ObjectiveConfig):
    """Options of SimCSE; the defaults are those of the unsupervised setting of the paper."""

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
        default=0.15, gt=0, le=1, description="share of the tokens that MLM asks for"
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
    """InfoNCE over in-batch negatives, or another objective.

    Data of kind ``texts``: a sentence is its own positive under another dropout mask. The method
    makes both views itself, in one forward pass of 2B rows; dropout is drawn for each element, so
    the twins differ. Data of kind ``pairs`` and ``triplets``: the positive, and the hard
    negatives, come from the data. The kind is read off the number of views.

    With ``mlp_only_train`` the head belongs to the method and is gone when the encoder is saved;
    without it the head is installed in the encoder. A head the encoder already keeps stays part
    of the encoder: it is trained on, never replaced.

    Raises:
        ModelError: ``mlm_weight`` is above 0 and the model has no MLM head or no mask token.
    """

    name: ClassVar[str] = "simcse"
    paper: ClassVar[Paper] = Paper(
        title="SimCSE: Simple Contrastive Learning of Sentence Embeddings",
        arxiv="2104.08821",
        year=2021,
    )
    reads: ClassVar[tuple[Kind, ...]] = ("texts", "pairs", "triplets")
    Config: ClassVar[type[MethodConfig]] = SimCSEConfig

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
        """(R, L) -> (R, d): one encoder forward, then the head if the method has one."""
        embeddings = super().embed(input_ids, attention_mask, views)
        return embeddings if self.head is None else self.head(embeddings)

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """The objective of (B, V, d): anchors, positives, hard negatives; and MLM, with its weight.

        Logs what :class:`~simcse_kit.methods.common.objective.ObjectiveLoss` does, and with
        ``mlm_weight`` ``mlm_loss`` before its weight.

        Raises:
            ConfigError: a batch without any negative, or with shapes that do not fit.
        """
        output = self.objective(embeddings, batch)
        loss: Tensor = output.loss
        logs: dict[str, float | Tensor] = output.logs
        if self.mlm is not None:
            # After the contrastive forward, so that its dropout draws do not depend on MLM.
            mlm_loss = self._mlm_loss(*batch.rows(), batch.view_mask.flatten())
            logs["mlm_loss"] = mlm_loss.detach()
            loss = loss + self.options.mlm_weight * mlm_loss
        return MethodOutput(loss=loss, logs=logs)

    def after_step(self, progress: float) -> None:
        """Keep a learned temperature in its bounds."""
        self.objective.after_step()

    def _mlm_loss(self, input_ids: Tensor, attention_mask: Tensor, present: Tensor) -> Tensor:
        """Masks every view anew, the twins of one sentence differently; dummy rows are left out."""
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
        output = self.mlm(input_ids=masked_ids, attention_mask=attention_mask)
        return masked_lm_loss(output.logits, input_ids, chosen)
