"""Prompts of the columns of training data, and of the encoder that is trained with them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simcse_kit.config import DataSection
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.registry import closest

__all__ = ["ColumnPrompts", "column_prompts"]

# Names of the columns of anchors, positives and hard negatives, as the headers of files have them.
_NAMES = (
    ("anchor", "query", "sent0", "text", "sentence", "sentence1", "0"),
    ("positive", "pos", "sent1", "sentence2", "1"),
    ("negative", "neg", "hard_neg", "2"),
)
_NEGATIVE = re.compile(r"(?:hard_neg|negative)s?(?:_?[0-9]+)?")


@dataclass(frozen=True)
class ColumnPrompts:
    """The prompts of the texts of a row.

    Attributes:
        texts: prompt of the anchor, of the positive and of each hard negative; empty if the
            configuration has no prompts.
    """

    texts: tuple[str, ...] = ()

    @property
    def differ(self) -> bool:
        """Whether the texts of a row have different prompts."""
        return len(set(self.texts)) > 1

    def give_to(self, encoder: SentenceEncoder) -> None:
        """Set the prompts of the encoder, which are saved with it.

        A prompt of all columns becomes the default prompt; different ones become the prompts
        ``query`` (of the anchors) and ``document`` (of the positives).

        Raises:
            ModelError: the prompts differ, and the encoder leaves prompts out of its vectors.
        """
        if not self.texts:
            return
        if not self.differ:
            encoder.prompt = self.texts[0]
            encoder.unpooled()
            return
        if not encoder.include_prompt:
            raise ModelError(
                f"{encoder.source} leaves prompts out of its vectors (include_prompt = false), and "
                "data.prompts of different texts cannot be left out in training; set "
                "include_prompt to true in the config.json of its Pooling, or give one prompt for "
                "all columns"
            )
        encoder.prompts = encoder.prompts | {"query": self.texts[0], "document": self.texts[1]}


def column_prompts(section: DataSection, data: DataSpec) -> ColumnPrompts:
    """Find the prompt of each text of a row.

    Args:
        section: settings of the data.
        data: kind of the rows.

    Raises:
        ConfigError: a prompt is given for a column that the rows do not have.

    Examples:
        >>> section = DataSection(prompts={"query": "query: ", "pos": "passage: "})
        >>> column_prompts(section, DataSpec("triplets", 2)).texts
        ('query: ', 'passage: ', 'passage: ', 'passage: ')
    """
    given = section.prompts
    count = len(data.columns)
    if given is None:
        return ColumnPrompts()
    if isinstance(given, str):
        return ColumnPrompts((given,) * count)
    found: dict[int, str] = {}
    for name, prompt in given.items():
        place = _place(name, section.columns)
        if place is None or place >= count:
            known = [*(section.columns or ()), *(names[0] for names in _NAMES[:count])]
            raise ConfigError(
                f"data.prompts: rows of this data ({data.kind}) have no column {name!r}"
                f"{closest(name, known)}; known: {', '.join(dict.fromkeys(known))}"
            )
        found[place] = prompt
    texts = [found.get(0, ""), found.get(1, "")]
    # Hard negatives are documents as positives are.
    texts += [found.get(2, texts[1])] * (count - 2)
    return ColumnPrompts(tuple(texts[:count]))


def _place(name: str, columns: list[str] | None) -> int | None:
    """Return 0 for the anchor, 1 for the positive, 2 for hard negatives, or None."""
    if columns is not None and name in columns:
        return min(columns.index(name), 2)
    if _NEGATIVE.fullmatch(name):
        return 2
    return next((place for place, names in enumerate(_NAMES) if name in names), None)
