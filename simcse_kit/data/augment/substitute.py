"""Words exchanged for synonyms (CLEAR, arXiv 2012.15466)."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from simcse_kit.data.augment.base import WordAugmentation, checked_share, part_of
from simcse_kit.data.augment.synonyms import Synonyms, WordNet, read_synonyms

__all__ = ["Substitute"]

_CORE = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


class Substitute(WordAugmentation):
    """Puts synonyms in the place of words; CLEAR's is ``substitute(0.3)``.

    CLEAR takes its similar words from a list made of word vectors. Here they are WordNet's, or
    those of a file. Capitals and punctuation around a word stay.

    Args:
        rate: share of all words to exchange, as far as so many have a synonym.
        synonyms: a .tsv file, a word and its synonyms a line; None for WordNet, in English (extra
            ``wordnet``).
    """

    def __init__(self, rate: float, synonyms: str | None = None):
        self.rate = checked_share(rate, "rate")
        if synonyms is not None and not isinstance(synonyms, str):
            raise ValueError(f"synonyms is {synonyms!r}; it must be the name of a .tsv file")
        self.synonyms: Synonyms = WordNet() if synonyms is None else read_synonyms(Path(synonyms))

    def change(self, words: list[str], rng: Random) -> list[str]:
        """The words, some exchanged; each has one entry as before, also for synonyms of two words.

        Words are tried in random order until enough are found that have a synonym.
        """
        wanted = part_of(self.rate, len(words), rng)
        changed = list(words)
        for place in rng.sample(range(len(words)), len(words)):
            if not wanted:
                break
            match = _CORE.fullmatch(words[place])
            assert match is not None  # the pattern takes any text
            before, core, after = match.groups()
            choices = self.synonyms.of(core.lower()) if core else ()
            if choices:
                changed[place] = before + _as_written(rng.choice(choices), core) + after
                wanted -= 1
        return changed


def _as_written(word: str, model: str) -> str:
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word
