"""Collation of examples into the named tensors that methods take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.readers import Example

__all__ = ["BatchCounts", "Collated", "Collator", "CountingCollator", "ViewPrompt"]

Collated: TypeAlias = dict[str, Any]
"""The tensors of a batch by name, and ``lengths`` and ``host``, numpy arrays that stay on the host.
"""


@dataclass
class BatchCounts:
    """Counts over the distinct sentences of each batch, summed over batches.

    Attributes:
        sentences: number of sentences.
        cut: number of sentences longer than the maximum length.
        tokens: number of tokens, without those that surround every sentence.
        unknown: number of those tokens that the vocabulary does not have.
    """

    sentences: int = 0
    cut: int = 0
    tokens: int = 0
    unknown: int = 0

    @property
    def truncated(self) -> float | None:
        """Share of the sentences that were cut; None if no sentence was counted."""
        return self.cut / self.sentences if self.sentences else None

    @property
    def unknown_share(self) -> float | None:
        """Share of the tokens that are unknown; None if no token was counted."""
        return self.unknown / self.tokens if self.tokens else None

    def add(self, other: BatchCounts) -> None:
        """Add the counts of another batch."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class ViewPrompt:
    """The prompt of a view.

    Attributes:
        text: text in front of every text of the view.
        before: number of tokens of a row before the text itself.
        around: number of tokens of a row without the text itself.
    """

    text: str
    before: int
    around: int


def _identity(row: Sequence[int], prompt: ViewPrompt | None) -> int:
    """Compute a number that is equal for rows of equal tokens, apart from their prompts."""
    return hash(tuple(row if prompt is None else row[prompt.before :]))


@dataclass(frozen=True)
class Collator:
    """Collator that tokenizes all views of a batch in one call and pads them together.

    Attributes:
        tokenize: function from texts to token ids and the number of texts that were cut.
        pad_id: token id that fills up shorter rows.
        views: index of the text of an example that each view holds.
        augment: augmentation of the views; None leaves the texts unchanged.
        unknown_id: token id of what the vocabulary does not have; None if there is no such token.
        bare: token ids of an empty sentence, which are part of every row.
        label_scale: lowest and highest label, which are mapped to 0 and 1; None leaves labels
            unchanged.
        targets: function from the row numbers of n examples to (n, t) float32, the vectors that
            teachers give them; None without teachers.
        prompts: prompt of each view, if they differ; else ``tokenize`` adds the prompt.
    """

    tokenize: Callable[[Sequence[str]], tuple[list[list[int]], int]]
    pad_id: int
    views: tuple[int, ...]
    augment: AugmentedViews | None = None
    unknown_id: int | None = None
    bare: Sequence[int] = ()
    label_scale: Sequence[float] | None = None
    targets: Callable[[Sequence[int]], NDArray[np.float32]] | None = None
    prompts: tuple[ViewPrompt, ...] = ()

    def __call__(self, examples: Sequence[Example]) -> Collated:
        """Collate B examples in V views.

        Returns:
            ``input_ids`` and ``attention_mask`` ``(B, V, L)`` int64; ``text_ids`` ``(B, V)``
            int64, equal where the tokens before augmentation are equal; ``view_mask`` ``(B, V)``
            bool, False where an example has no such text and an empty sentence fills its place;
            ``lengths`` ``(B, V)`` int64, the numbers of tokens, an array that stays on the host.
            With labelled examples also ``labels`` ``(B,)`` float32, with teachers also ``targets``
            ``(B, t)`` float32. ``host`` holds the tensors once more, as arrays by name that stay
            on the host.
        """
        return self.counted(examples)[0]

    def counted(self, examples: Sequence[Example]) -> tuple[Collated, BatchCounts]:
        """Collate as :meth:`__call__` does, and count the sentences of the batch."""
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
        prompts: dict[str, ViewPrompt] = {}
        if self.prompts:
            texts = self._with_prompts(texts, present, prompts)
            sources = self._with_prompts(sources, present, prompts)
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        rows, cut = self.tokenize(list(distinct))
        counts = BatchCounts(
            sentences=len({text for text, there in zip(texts, present, strict=True) if there}),
            cut=cut,
            tokens=max(0, sum(map(len, rows)) - self._around(list(distinct), prompts)),
            unknown=self._unknown(rows),
        )
        longest = max(len(row) for row in rows)
        padded = torch.tensor([row + [self.pad_id] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(longest) < lengths[:, None]).to(torch.int64)
        # Ids by tokens and not by text: sentences that become equal by truncation are equal. The
        # hash of a tuple of integers is the same in every Python process. An augmented text keeps
        # the id of its source, so that copies of a sentence do not become negatives.
        known = {text: _identity(rows[row], prompts.get(text)) for text, row in distinct.items()}
        others = [text for text in dict.fromkeys(sources) if text not in known]
        if others:
            tokens, _ = self.tokenize(others)
            known |= {
                text: _identity(row, prompts.get(text))
                for text, row in zip(others, tokens, strict=True)
            }
        hashes = torch.tensor([known[text] for text in sources])
        index = torch.tensor([distinct[text] for text in texts])
        labels = [example.label for example in examples if example.label is not None]
        if self.label_scale is not None:
            lowest, highest = self.label_scale
            labels = [(label - lowest) / (highest - lowest) for label in labels]
        batch: Collated = {"labels": torch.tensor(labels, dtype=torch.float32)} if labels else {}
        if self.targets is not None:
            numbers = [example.row for example in examples]
            batch["targets"] = torch.from_numpy(self.targets(numbers))
        batch |= {
            "input_ids": padded[index].view(*shape, longest),
            "attention_mask": mask[index].view(*shape, longest),
            "text_ids": hashes.view(shape),
            "view_mask": torch.tensor(present).view(shape),
            "lengths": lengths[index].view(shape).numpy(),
        }
        # Views of the same memory: the tensors are moved to a device later, and the arrays are not.
        batch["host"] = {
            name: part.numpy() for name, part in batch.items() if isinstance(part, torch.Tensor)
        }
        return batch, counts

    def _with_prompts(
        self, texts: Sequence[str], present: Sequence[bool], prompts: dict[str, ViewPrompt]
    ) -> list[str]:
        """Put the prompts in front of the texts, and add the prompt of each result."""
        prompted = []
        for number, (text, there) in enumerate(zip(texts, present, strict=True)):
            prompt = self.prompts[number % len(self.prompts)]
            prompted.append(prompt.text + text if there else text)
            if there:
                prompts.setdefault(prompted[-1], prompt)
        return prompted

    def _around(self, texts: Sequence[str], prompts: dict[str, ViewPrompt]) -> int:
        """Count the tokens that do not belong to the texts."""
        return sum(prompts[text].around if text in prompts else len(self.bare) for text in texts)

    def _unknown(self, rows: Sequence[Sequence[int]]) -> int:
        if self.unknown_id is None:
            return 0
        around = self.bare.count(self.unknown_id) * len(rows)
        return max(0, sum(row.count(self.unknown_id) for row in rows) - around)


class CountingCollator:
    """A collator that sums the counts of its batches.

    Data-loader workers each have a copy, so that :attr:`counts` stays empty in the main process.

    Args:
        collator: the collator that makes the batches.

    Attributes:
        counts: the sum over all batches so far.
    """

    def __init__(self, collator: Collator):
        self._collator = collator
        self.counts = BatchCounts()

    def __call__(self, examples: Sequence[Example]) -> Collated:
        """Collate and count one batch."""
        batch, counts = self._collator.counted(examples)
        self.counts.add(counts)
        return batch
