"""Collation of examples into the named tensors that methods take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.readers import Example

__all__ = ["Collator"]


@dataclass
class Collator:
    """Collator that tokenizes all views of a batch in one call and pads them together.

    Attributes:
        tokenize: Function from texts to token ids and the number of truncated texts.
        pad_id: Token id of the padding.
        views: Number of the text of an example that each view holds.
        augment: Augmentation of the texts of the views, if any.
        unknown_id: Token id for text outside the vocabulary, if any.
        bare: Token ids of an empty sentence, which are part of every row.
        sentences: Sum over all batches of the number of distinct sentences.
        cut: Number of these sentences that were truncated.
        tokens: Number of tokens in these sentences, without those of ``bare``.
        unknown: Number of these tokens that are unknown.
    """

    tokenize: Callable[[Sequence[str]], tuple[list[list[int]], int]]
    pad_id: int
    views: tuple[int, ...]
    augment: AugmentedViews | None = None
    unknown_id: int | None = None
    bare: Sequence[int] = ()
    sentences: int = field(default=0, init=False)
    cut: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    unknown: int = field(default=0, init=False)

    @property
    def truncated(self) -> float | None:
        """Share of truncated sentences; None before the first batch."""
        return self.cut / self.sentences if self.sentences else None

    @property
    def unknown_share(self) -> float | None:
        """Share of unknown tokens; None before the first batch."""
        return self.unknown / self.tokens if self.tokens else None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Collate a batch of B examples in V views of L tokens.

        Returns:
            ``input_ids`` and ``attention_mask`` ``(B, V, L)`` int64; ``text_ids`` ``(B, V)``
            int64, equal for texts whose tokens before augmentation are equal; ``view_mask``
            ``(B, V)`` bool, False for a text that an example lacks and an empty sentence replaces.
            With labelled examples also ``labels`` ``(B,)`` float32.
        """
        shape = (len(examples), len(self.views))
        texts: list[str] = []
        present: list[bool] = []
        for example in examples:
            for view in self.views:
                there = view < len(example.texts)
                present.append(there)
                texts.append(example.texts[view] if there else "")
        sources = texts
        if self.augment is not None:
            texts = self.augment(sources, examples, present)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        rows, cut = self.tokenize(list(distinct))
        self.sentences += len({text for text, there in zip(texts, present, strict=True) if there})
        self.cut += cut
        self._count_unknown(rows)
        longest = max(len(row) for row in rows)
        padded = torch.tensor([row + [self.pad_id] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(longest) < lengths[:, None]).to(torch.int64)
        # Ids by tokens and not by text: sentences that become equal by truncation are equal. The
        # hash of a tuple of integers is the same in every Python process. An augmented text keeps
        # the id of its source, so that copies of a sentence do not become negatives.
        known = {text: hash(tuple(rows[row])) for text, row in distinct.items()}
        others = [text for text in dict.fromkeys(sources) if text not in known]
        if others:
            tokens, _ = self.tokenize(others)
            known |= {text: hash(tuple(row)) for text, row in zip(others, tokens, strict=True)}
        hashes = torch.tensor([known[text] for text in sources])
        index = torch.tensor([distinct[text] for text in texts])
        labels = [example.label for example in examples if example.label is not None]
        return ({"labels": torch.tensor(labels, dtype=torch.float32)} if labels else {}) | {
            "input_ids": padded[index].view(*shape, longest),
            "attention_mask": mask[index].view(*shape, longest),
            "text_ids": hashes.view(shape),
            "view_mask": torch.tensor(present).view(shape),
        }

    def _count_unknown(self, rows: Sequence[Sequence[int]]) -> None:
        self.tokens += max(0, sum(map(len, rows)) - len(self.bare) * len(rows))
        if self.unknown_id is not None:
            around = self.bare.count(self.unknown_id) * len(rows)
            found = sum(row.count(self.unknown_id) for row in rows) - around
            self.unknown += max(0, found)
