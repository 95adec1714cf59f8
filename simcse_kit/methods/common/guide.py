"""A frozen second model that finds false negatives (GISTEmbed, arXiv 2402.16829)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.encoder.backbone import position_limit
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.batch import Batch
from simcse_kit.utils.host_copies import send

__all__ = ["GuideModel"]


class GuideModel:
    """A guide that embeds the batches of the encoder that is trained.

    It is not a torch module, because it never changes and need not be in checkpoints. It reads
    the token ids of the batch and therefore needs the same tokenizer: tokens that are decoded and
    tokenized again can differ from the text in the file.

    Args:
        name: A folder or the name of a model.
        encoder: The encoder that is trained.

    Raises:
        ModelError: The guide cannot be opened.
        ConfigError: The tokens of the guide differ from those of ``encoder``.
    """

    def __init__(self, name: str, encoder: SentenceEncoder):
        self.model = SentenceEncoder.load(name, device="cpu")
        self.model.require_weights()
        self.model.requires_grad_(False)
        difference = _difference(self.model, encoder)
        if difference:
            raise ConfigError(
                f"method.guide = {name!r} cannot read the tokens of the encoder, because "
                f"{difference}; use a guide of the same family"
            )

    def embed(self, batch: Batch) -> Tensor:
        """Embed each distinct text once: (B, V, g) without gradient, on the device of the batch."""
        device = batch.text_ids.device
        if self.model.device != device:
            self.model.to(device)
        host = batch.on_host()
        ids, mask = host.rows()
        _, number = torch.unique(host.text_ids.flatten(), return_inverse=True)
        first = torch.full((int(number.max()) + 1,), len(number))
        first.scatter_reduce_(0, number, torch.arange(len(number)), "amin")
        rows = [
            row[kept].tolist() for row, kept in zip(ids[first], mask[first].bool(), strict=True)
        ]
        # Autograd cannot save inference tensors; a clone outside inference mode is a normal tensor.
        vectors = vectors_of_rows(self.model, rows).clone().to(device)
        return vectors[send(number, device)].view(*batch.shape, -1)


def _difference(guide: SentenceEncoder, encoder: SentenceEncoder) -> str | None:
    """Explain why the two produce different tokens, or return None."""
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
