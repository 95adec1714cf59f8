"""Equal texts found by sorting, against a comparison of every pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.losses.chunk_masks import SameText, add_to_logits, same_text_changes


def ids(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([1, 3, 1 << 20]),
)
def test_every_equal_pair_once(
    texts: list[tuple[int, int]], candidates: list[int], both: bool, width: int, most: int
) -> None:
    queries = [ids(*column) for column in zip(*texts, strict=True)][: 2 if both else 1]
    column = torch.arange(len(candidates)).flip(0)
    change = SameText(queries, ids(*candidates), column)
    expected = torch.zeros(len(candidates), len(texts), dtype=torch.bool)
    for query in queries:
        expected[column] |= ids(*candidates).unsqueeze(1) == query
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SameText, "most_cells", most)
        strips = []
        for start in range(0, len(texts), width):
            strip = torch.zeros(len(candidates), min(width, len(texts) - start))
            change(strip, start)
            strips.append(strip)
    assert torch.equal(torch.cat(strips, dim=1) == -torch.inf, expected)
    assert change.total == int(expected.sum())


@pytest.mark.parametrize(
    ("anchors", "positives", "changes"),
    [
        (ids(1, 2, 3), ids(1, 2, 3), 0),
        (ids(1, 2, 3), ids(4, 5, 6), 0),
        (ids(1, 1, 3), ids(4, 5, 6), 0),  # equal anchors are not candidates
        (ids(1, 2, 3), ids(4, 1, 6), 1),  # a single cell
        (ids(1, 2, 3), ids(4, 4, 6), 1),
        (None, ids(4, 4, 6), 1),
        (ids(1, 2, 3), None, 0),
    ],
)
def test_nothing_is_done_where_no_candidate_is_a_copy(
    anchors: Tensor | None, positives: Tensor | None, changes: int
) -> None:
    always = 0 if positives is None else 3
    found = same_text_changes([anchors, positives], [(positives, 0)], expected=always)
    assert len(found) == changes


def test_weights_go_to_their_cells_only() -> None:
    change = add_to_logits(ids(0, 2, 2, 3), ids(4, 1, 0, 2), 1.5)
    whole = torch.zeros(5, 4)
    whole[[4, 1, 0, 2], [0, 2, 2, 3]] = 1.5
    for start, stop in [(0, 4), (0, 2), (2, 3), (1, 4)]:
        strip = torch.zeros(5, stop - start)
        change(strip, start)
        assert torch.equal(strip, whole[:, start:stop])
