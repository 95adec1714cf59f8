"""Sentences of many lengths, to verify an export and to calibrate int8 without user text."""

from __future__ import annotations

import random
from collections.abc import Iterable

from simcse_kit.encoder.inputs import texts_one_by_one

__all__ = ["SENTENCES", "random_sample"]

_SINGLE = (
    "Yes.",
    "Where is the station?",
    "A dog runs along the beach.",
    "Two children are building a castle of sand.",
    "The price of bread rose by four percent in March.",
    "She had never seen the sea before that summer.",
    "Could you send me the minutes of yesterday's meeting?",
    'He said: "I\'d rather walk", and shut the door behind him.',
    "The court will hear the appeal on 12 May 2021 at 9:30.",
    "Wind from the north-west, 15 to 20 km/h, with showers towards the evening.",
    "In São Paulo, Zürich and Kraków the cafés were full.",
    "If the pump does not start, check the fuse, then the float, and only then open the housing.",
    "Researchers found that people who slept well remembered the list better than those who did "
    "not, though the difference grew smaller with age.",
    "The committee, which had met eleven times since the autumn, could agree neither on the cost "
    "of the bridge nor on the place where it should cross the river, and so it asked for one more "
    "report.",
)

# The two longest texts show faults that depend on length.
SENTENCES = (*_SINGLE, " ".join(_SINGLE[:9]), " ".join(_SINGLE))


def random_sample(texts: Iterable[str], size: int) -> list[str]:
    """Return at most ``size`` distinct sentences in random order, the same for the same texts."""
    rng = random.Random(0)
    kept: list[str] = []
    for number, text in enumerate(texts_one_by_one(texts)):
        if number < size:
            kept.append(text)
        elif (place := rng.randrange(number + 1)) < size:
            kept[place] = text
    kept = [text for text in dict.fromkeys(kept) if text.strip()]
    rng.shuffle(kept)
    return kept
