"""Sentences that an export is verified on where the user gives none."""

from __future__ import annotations

__all__ = ["SENTENCES"]

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

# Longer ones are made of these: what goes wrong with length shows there.
SENTENCES = (*_SINGLE, " ".join(_SINGLE[:9]), " ".join(_SINGLE))
