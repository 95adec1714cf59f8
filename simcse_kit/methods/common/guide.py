"""A frozen second model that looks for false negatives (GISTEmbed, arXiv 2402.16829)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.encoder.backbone import position_limit
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.batch import Batch

__all__ = ["GuideModel"]


class GuideModel:
    """Embeds the batches of another encoder.

    No module, on purpose: it does not change, so that checkpoints need not hold it. It reads the
    tokens of the batch as they are, hence the same tokenizer. Tokens decoded to text and split
    anew are not the text that was in the file.

    Args:
        name: a folder or a name.
        encoder: whose batches it will embed.

    Raises:
        ModelError: it cannot be opened.
        ConfigError: its tokens are not those of ``encoder``.
    """

    def __init__(self, name: str, encoder: SentenceEncoder):
        self._model = SentenceEncoder.load(name)
        self._model.require_weights()
        self._model.requires_grad_(False)
        difference = _difference(self._model, encoder)
        if difference:
            raise ConfigError(
                f"method.guide = {name!r} cannot read the tokens of the encoder, because "
                f"{difference}; use a guide of the same family"
            )

    def embed(self, batch: Batch) -> Tensor:
        """(B, V, g) without gradient, on the device of the batch; each text is embedded once."""
        device = batch.text_ids.device
        if self._model.device != device:
            self._model.to(device)
        ids, mask = batch.rows()
        _, number = torch.unique(batch.text_ids.flatten(), return_inverse=True)
        first = torch.full((int(number.max()) + 1,), len(number), device=device)
        first.scatter_reduce_(0, number, torch.arange(len(number), device=device), "amin")
        rows = [
            row[kept].tolist()
            for row, kept in zip(ids[first].cpu(), mask[first].bool().cpu(), strict=True)
        ]
        # A clone made here is no inference tensor, which autograd would refuse to keep.
        vectors = vectors_of_rows(self._model, rows).clone().to(device)
        return vectors[number].view(*batch.shape, -1)


def _difference(guide: SentenceEncoder, encoder: SentenceEncoder) -> str | None:
    """Why both do not make the same tokens of a text, or None."""
    if guide.tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
        return "its tokenizer has another vocabulary"
    if guide.tokenizer.all_special_ids != encoder.tokenizer.all_special_ids:
        return "its tokenizer has other special tokens"
    for what in ("prompt", "lowercase", "template"):
        theirs, ours = getattr(guide, what), getattr(encoder, what)
        if theirs != ours:
            return f"its {what} is {theirs!r} and the encoder's {ours!r}"
    limit = position_limit(guide.backbone)
    if limit is not None and limit < encoder.max_length:
        return f"it takes {limit} tokens and the encoder {encoder.max_length}"
    return None
