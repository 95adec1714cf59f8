"""Properties of mining, for any rows and options."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.prepare.mine import Anchors, mine
from simcse_kit.data.prepare.negative_selection import Mining
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.readers import read_texts
from simcse_kit.errors import DataError

# Few texts, some of them equal except for case and punctuation.
TEXTS = st.sampled_from([f"{letter}{end}" for letter in "abcdefAB" for end in ("", "!", " c")])


class Directions:
    """Vectors in a narrow cone, the same for texts that are nearly the same."""

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        del normalize, progress
        angles = np.array([sum(map(ord, text)) % 60 for text in sentences]) * (np.pi / 180)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=15),
    st.booleans(),
    st.lists(TEXTS, max_size=5),
    st.builds(
        Mining,
        negatives=st.integers(1, 3),
        ranks=st.sampled_from([(1, 3), (1, 50), (2, 6)]),
        factor=st.sampled_from([1.0, 0.95, 0.5]),
        margin=st.sampled_from([0.0, 0.1]),
        pick=st.sampled_from(["hardest", "random"]),
        hard_positives=st.booleans(),
        positive_score=st.sampled_from([-1.0, 0.6, 0.8]),
        positive_rank=st.integers(1, 6),
    ),
)
def test_the_texts_of_a_row_differ_and_no_positive_is_a_negative(
    pairs: list[tuple[str, str]], single: bool, candidates: list[str], mining: Mining
) -> None:
    anchors, positives = ([row[side] for row in pairs] for side in (0, 1))
    rows = Anchors(anchors, None if single else positives)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "t.jsonl"
        try:
            mine(Directions(), rows, target, mining, candidates=candidates)
        except DataError:
            return
        found = [tuple(map(normal_key, row)) for row in read_texts(target)[1]]
    assert found
    given_pairs = pairs if not single else []
    matched = {frozenset(map(normal_key, row)) for row in given_pairs}
    matched |= {frozenset(row[:2]) for row in found}
    for row in found:
        assert len(set(row)) == len(row) >= 3
        for negative in row[2:]:
            assert frozenset((row[0], negative)) not in matched
