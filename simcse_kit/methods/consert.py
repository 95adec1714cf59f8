"""ConSERT: contrast of augmented input embeddings (arXiv 2105.11741)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from pydantic import Field, field_validator
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.losses.similarity import unit_rows
from simcse_kit.methods.common.base import Method, MethodOutput, Paper
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.methods.common.perturbation import (
    add_noise,
    cut_elements,
    cut_features,
    cut_tokens,
    shuffle_tokens,
)
from simcse_kit.registry import closest
from simcse_kit.utils.host_copies import reads_are_free
from simcse_kit.utils.spec import instantiate, parse_chain

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["ConSERT", "ConSERTConfig", "Perturbation", "perturbation"]

Change = Callable[[Tensor], Tensor]


def _share(rate: float) -> float:
    if isinstance(rate, bool) or not 0 < rate < 1:
        raise ValueError(f"the rate is {rate!r}; it must be between 0 and 1, such as 0.2")
    return float(rate)


def _cutoff(rate: float = 0.15) -> Change:
    share = _share(rate)
    return lambda states: cut_tokens(states, share)


def _feature_cutoff(rate: float = 0.2) -> Change:
    share = _share(rate)
    return lambda states: cut_features(states, share)


def _dropout(rate: float = 0.2) -> Change:
    share = _share(rate)
    return lambda states: cut_elements(states, share)


def _noise(deviation: float = 0.01) -> Change:
    if isinstance(deviation, bool) or not 0 < deviation < float("inf"):
        raise ValueError(f"the deviation is {deviation!r}; it must be above 0, such as 0.01")
    return lambda states: add_noise(states, float(deviation))


def _nothing() -> None:
    return None


# The first two change no states: `shuffle` reorders tokens, before all others.
_PERTURBATIONS: dict[str, Callable[..., Change | None]] = {
    "none": _nothing,
    "shuffle": _nothing,
    "cutoff": _cutoff,
    "token_cutoff": _cutoff,
    "feature_cutoff": _feature_cutoff,
    "dropout": _dropout,
    "noise": _noise,
}


@dataclass(frozen=True)
class Perturbation:
    """The augmentations of one view.

    Args:
        shuffles: whether the tokens are shuffled.
        changes: functions of the input embeddings, applied in this order.
    """

    shuffles: bool
    changes: tuple[Change, ...]

    def __call__(self, states: Tensor) -> Tensor:
        """Change the states (r, l, d) of r rows."""
        for change in self.changes:
            states = change(states)
        return states


def perturbation(text: str, *, what: str) -> Perturbation:
    """Parse a chain such as ``"shuffle|feature_cutoff(0.2)"``.

    Args:
        text: none, shuffle, cutoff(rate) or token_cutoff(rate), feature_cutoff(rate),
            dropout(rate), noise(deviation); several are joined by ``|``.
        what: the setting that contains the text, for error messages.

    Raises:
        ConfigError: an unknown name, or wrong arguments.
    """
    calls = parse_chain(text, what=what)
    changes = []
    for call in calls:
        if call.name not in _PERTURBATIONS:
            names = list(_PERTURBATIONS)
            raise ConfigError(
                f"{what}: unknown augmentation {call.name!r}{closest(call.name, names)}; known: "
                f"{', '.join(names)}"
            )
        change = instantiate(call, _PERTURBATIONS[call.name], what=what)
        changes += [] if change is None else [change]
    return Perturbation(any(call.name == "shuffle" for call in calls), tuple(changes))


class ConSERTConfig(DropoutConfig):
    """Options of ConSERT, with the paper's defaults for the unsupervised setting."""

    views: list[str] = Field(
        default=["feature_cutoff(0.2)", "shuffle"],
        min_length=2,
        max_length=2,
        description="augmentations of each view, of none, shuffle, cutoff(rate), "
        "feature_cutoff(rate), dropout(rate), noise(deviation); joined by |",
    )
    temperature: float = Field(
        default=0.1, gt=0, description="temperature tau that divides the cosines"
    )
    dropout: float | None = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="set every dropout of the encoder (paper: off, so that the views differ by "
        "their augmentations alone)",
    )

    @field_validator("views")
    @classmethod
    def _known(cls, views: list[str]) -> list[str]:
        for view in views:
            perturbation(view, what="method.views")
        return views

    def contrast(self, data: DataSpec, batch_size: int) -> Contrast:
        """Compare an anchor with both views of the other rows."""
        return Contrast(2 * (batch_size - 1))


class ConSERT(Method):
    """NT-Xent between two views of a sentence with different input-embedding augmentations.

    For data of kind ``texts``, both views are the
    sentence; for ``pairs``, anchor and positive, each with its own augmentations. Embeddings are
    changed at the input of the first transformer layer. In evaluation mode nothing is changed.

    Deviations: special tokens are not shuffled, so that every pooling finds its token. The paper's
    adversarial noise needs the gradient of a label and is left out; Gaussian noise is an addition.

    Examples:
        >>> ConSERTConfig(views=["cutoff(0.2)", "noise(0.01)"]).dropout
        0.0
    """

    name = "consert"
    paper = Paper(
        "ConSERT: A Contrastive Framework for Self-Supervised Sentence Representation Transfer",
        "2105.11741",
        2021,
    )
    reads = ("texts", "pairs")
    Config = ConSERTConfig

    options: ConSERTConfig

    def __init__(self, encoder: SentenceEncoder, config: ConSERTConfig):
        super().__init__(encoder, config)
        self.perturbations = [perturbation(view, what="method.views") for view in config.views]

    def layout(self, batch: Batch) -> Batch:
        """Return (B, 2, L): a single view is taken twice, and views are shuffled as configured."""
        batch = batch if batch.shape[1] > 1 else batch.repeat_views(2)
        if not (self.training and any(part.shuffles for part in self.perturbations)):
            return batch
        # On the host, whose generator decides the order on every device.
        device, batch = batch.text_ids.device, batch.on_host()
        input_ids = batch.input_ids.clone()
        special = self.encoder.tokenizer.all_special_ids
        for view, part in enumerate(self.perturbations):
            if part.shuffles:
                mask = batch.attention_mask[:, view]
                input_ids[:, view] = shuffle_tokens(input_ids[:, view], mask, special)
        return replace(batch, input_ids=input_ids).to(device)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        """Embed (R, L) as (R, d), each row with the augmentations of its view."""
        if not (self.training and any(part.changes for part in self.perturbations)):
            return super().embed(input_ids, attention_mask, views)

        def alter(states: Tensor, rows: Tensor) -> Tensor:
            for view, part in enumerate(self.perturbations):
                if not part.changes:
                    continue
                chosen = views[rows] == view
                if not reads_are_free(states.device):
                    # The number of chosen rows is not known on the host, so all are changed.
                    states = torch.where(chosen[:, None, None], part(states), states)
                    continue
                mine = chosen.nonzero().squeeze(1)
                if len(mine):
                    states = states.index_copy(0, mine, part(states[mine]))
            return states

        embeddings: Tensor = self.encoder(input_ids, attention_mask, alter=alter)
        return embeddings

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        """Compute NT-Xent of (B, 2, d).

        Logs ``contrastive_loss`` and ``positive_cosine``, the mean cosine of the two views.

        Raises:
            ConfigError: the batch has one row.
        """
        first, second = embeddings[:, 0], embeddings[:, 1]
        loss = nt_xent(batch.to_contrastive(embeddings, self.options.temperature))
        cosines = (unit_rows(first.detach()) * unit_rows(second.detach())).sum(dim=1)
        logs: dict[str, float | Tensor] = {
            "contrastive_loss": loss.detach(),
            "positive_cosine": cosines.mean(),
        }
        return MethodOutput(loss=loss, logs=logs)
