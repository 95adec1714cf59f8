"""Masked-LM proposals for the augmentation ``mlm``, from the encoder before training."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from simcse_kit.data.augment.base import random_count
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError

__all__ = ["Proposals"]

# Number of texts in one forward pass.
_TEXTS = 64
# Marks of word pieces, and of pieces of sentencepiece and byte-level tokenizers.
_INSIDE, _AFTER_SPACE = "##", ("\u2581", "\u0120")


class Proposals:
    """Replacement of tokens by predictions of a masked language model.

    The model is a copy that is not trained, so that a text is changed in the same way in a resumed
    run, and no matter whether its batch is loaded before or after a step.

    Args:
        model: module whose ``model(input_ids=, attention_mask=).logits`` are the predictions.
        tokenizer: its fast tokenizer, with a mask token.
        max_length: most tokens that the model reads; later tokens do not change.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._special = set(tokenizer.all_special_ids)
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._places = torch.tensor(
            [_place(piece or "", token in self._special) for token, piece in enumerate(pieces)]
        )

    @classmethod
    def of(cls, encoder: SentenceEncoder, device: torch.device) -> Proposals:
        """Make the proposals of a copy of an encoder.

        Raises:
            ModelError: the encoder is not a masked language model.
        """
        what = "augmentation mlm needs a masked language model"
        tokenizer = encoder.tokenizer
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            raise ModelError(f"{what} with a fast tokenizer that has a mask token")
        try:
            model = encoder.masked_lm()
        except ModelError as error:
            reason = str(error).partition(";")[0]
            raise ModelError(f"{what}: {reason}; use one as the start, or drop mlm") from None
        # A copy of the tokenizer too, because a call changes its padding and truncation.
        return cls(copy.deepcopy(model).to(device), copy.deepcopy(tokenizer), encoder.max_length)

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[str], rngs: Sequence[Random], *, rate: float, top: int
    ) -> list[str]:
        """Replace tokens of the texts; see :class:`~simcse_kit.data.augment.mlm.FillMasks`."""
        found: list[str] = []
        for start in range(0, len(texts), _TEXTS):
            part = slice(start, start + _TEXTS)
            found += self._fill(list(texts[part]), rngs[part], rate, top)
        return found

    def _fill(self, texts: list[str], rngs: Sequence[Random], rate: float, top: int) -> list[str]:
        encoded = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_offsets_mapping=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        chosen: list[list[int]] = []
        spans: list[list[tuple[int, int]]] = [
            [(start, end) for start, end in row] for row in encoded["offset_mapping"].tolist()
        ]
        for text, row, places, rng in zip(texts, ids.tolist(), spans, rngs, strict=True):
            ordinary = self._ordinary(text, row, places)
            chosen.append(sorted(rng.sample(ordinary, random_count(rate, len(ordinary), rng))))
        cells = [(row, at) for row, places in enumerate(chosen) for at in places]
        if not cells:
            return texts
        rows, columns = torch.tensor(cells).unbind(1)
        hidden = ids.clone()
        hidden[rows, columns] = self.tokenizer.mask_token_id
        device = next(self.model.parameters()).device
        logits = self.model(input_ids=hidden.to(device), attention_mask=mask.to(device)).logits
        best = self._best(logits[rows.to(device), columns.to(device)], ids[rows, columns], top)
        changed = list(texts)
        # From the right, so that the offsets on the left stay valid.
        for (row, at), (tokens, weights) in reversed(list(zip(cells, best, strict=True))):
            if not tokens:
                continue
            (token,) = rngs[row].choices(tokens, weights)
            word = self.tokenizer.decode([token]).removeprefix(_INSIDE).strip()
            if not word or "\ufffd" in word:  # only part of a character
                continue
            start, end = spans[row][at]
            text = changed[row]
            # Some tokenizers include the space before a word.
            start = end - len(text[start:end].lstrip())
            changed[row] = text[:start] + word + text[end:]
        return changed

    def _ordinary(self, text: str, ids: list[int], spans: list[tuple[int, int]]) -> list[int]:
        """List the positions of tokens that may be replaced."""
        # Excludes white space, and bytes of one character, which share a span.
        times = Counter(spans)
        return [
            at
            for at, ((start, end), token) in enumerate(zip(spans, ids, strict=True))
            if token not in self._special and text[start:end].strip() and times[start, end] == 1
        ]

    def _best(self, logits: Tensor, old: Tensor, top: int) -> list[tuple[list[int], list[float]]]:
        """Rank the proposals for n masked tokens.

        Args:
            logits: (n, vocabulary).
            old: (n,) the tokens that were masked.
            top: most proposals for each token.

        Returns:
            For each token, the proposals and their weights.
        """
        vocabulary = len(self._places)
        scores = logits[:, :vocabulary].float().cpu()
        scores = scores.masked_fill(self._places != self._places[old].unsqueeze(1), -torch.inf)
        scores[torch.arange(len(old)), old] = -torch.inf
        values, tokens = scores.topk(min(top, vocabulary))
        weights = (values - values[:, :1]).exp()
        return [
            ([t for t, v in zip(*both, strict=True) if v > 0], [v for v in both[1] if v > 0])
            for both in zip(tokens.tolist(), weights.tolist(), strict=True)
        ]


def _place(piece: str, special: bool) -> int:
    """Classify a piece: -1 special, 0 begins a word, 1 continues it, 2 begins after a space.

    Only pieces of the same class replace each other.
    """
    if special:
        return -1
    return 1 if piece.startswith(_INSIDE) else 2 if piece.startswith(_AFTER_SPACE) else 0
