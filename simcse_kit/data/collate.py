"""From examples to the named tensors that methods take."""

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
    """Tokenize all views of a batch in one call and pad them together.

    Attributes:
        tokenize: texts to token ids, with the number of texts that were cut.
        pad_id: id that fills up shorter rows.
        views: which text of an example each view holds.
        augment: changes the texts of the views; None leaves them.
        unknown_id: the token for what the vocabulary does not have; None for none.
        bare: the tokens of an empty sentence, which are part of every row.
        sentences: distinct sentences of every batch so far, summed.
        cut: those of them that were too long.
        tokens: the tokens of all sentences so far, without those of ``bare``.
        unknown: those of them that are unknown.
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
        """Share of the sentences that were cut; None before the first."""
        return self.cut / self.sentences if self.sentences else None

    @property
    def unknown_share(self) -> float | None:
        """Share of the tokens that are unknown; None before the first."""
        return self.unknown / self.tokens if self.tokens else None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """One batch of B examples in V views.

        Returns:
            ``input_ids`` and ``attention_mask`` ``(B, V, L)`` int64; ``text_ids`` ``(B, V)``
            int64, equal where the tokens are equal, those before any augmentation; ``view_mask``
            ``(B, V)`` bool, False where an example has no such text and an empty sentence stands
            in. With labelled examples also ``labels`` ``(B,)`` float32.
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
        # Equal tokens, not equal text: two sentences that the cut makes alike are alike. The hash
        # of a tuple of integers does not change from one Python process to the next. A changed
        # text keeps the id of its source, so that copies of a sentence do not become negatives.
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
