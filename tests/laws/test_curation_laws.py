"""Properties of deduplicating and splitting, for any rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.prepare.dedupe import dedupe
from simcse_kit.data.prepare.minhash import jaccard
from simcse_kit.data.prepare.normalize import letters_key, normal_key
from simcse_kit.data.prepare.output import writing
from simcse_kit.data.prepare.split import assign, split
from simcse_kit.data.records import Records
from simcse_kit.errors import DataError

# Few letters, so that texts repeat; with what makes csv and normal forms hard.
TEXTS = st.text(st.sampled_from('abAB1 .,!"+\n\ré\u093f\u200b'), min_size=1, max_size=8).filter(
    str.strip
)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=25)
Pair = tuple[str, str]


def stored(folder: str, rows: list[Pair], name: str = "x.csv") -> Path:
    path = Path(folder) / name
    with writing(path, ["sent0", "sent1"]) as writer:
        for first, second in rows:
            writer.write({"sent0": first, "sent1": second})
    return path


def read(path: Path) -> list[Pair]:
    return [(record["sent0"], record["sent1"]) for _, record in Records(path)]


def stripped(rows: list[Pair]) -> list[Pair]:
    return [(first.strip(), second.strip()) for first, second in rows]


def subsequence(part: list[Pair], whole: list[Pair]) -> bool:
    rest = iter(whole)
    return all(row in rest for row in part)


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.sampled_from(["exact", "normal", "near"]))
def test_what_stays_is_unlike_and_what_goes_was_there(rows: list[Pair], level: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = stored(folder, rows)
        target = Path(folder) / "y.csv"
        summary = dedupe(file, target, level=level)  # type: ignore[arg-type]
        kept = read(target)
        dedupe(target, Path(folder) / "z.csv", level=level)  # type: ignore[arg-type]
        assert read(Path(folder) / "z.csv") == kept
    given_rows = stripped(rows)
    assert subsequence(kept, given_rows)
    assert summary.rows + sum(summary.left_out.values()) == summary.read == len(rows)

    def alike(one: Pair, two: Pair) -> bool:
        if level == "exact":
            return one == two
        keys = [(normal_key(a), normal_key(b)) for a, b in zip(one, two, strict=True)]
        return all(jaccard(a, b) >= (0.8 if level == "near" else 1) for a, b in keys) and (
            level == "near" or all(a == b for a, b in keys)
        )

    assert all(any(alike(row, other) for other in kept) for row in given_rows)
    if level != "near":
        assert not any(alike(a, b) for n, a in enumerate(kept) for b in kept[:n])


@settings(deadline=None, max_examples=60)
@given(PAIRS, st.integers(), st.sampled_from(["anchor", "texts"]), st.floats(0.05, 0.45))
def test_parts_are_a_partition_and_share_nothing(
    rows: list[Pair], seed: int, by: str, share: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = stored(folder, rows)
        try:
            split(file, Path(folder) / "p", dev_test=f"{share},{share}", seed=seed, by=by)  # type: ignore[arg-type]
        except DataError as error:
            if "part would be empty" not in str(error):
                raise
            return
        parts = [read(path) for path in sorted((Path(folder) / "p").iterdir())]
    whole = stripped(rows)
    assert Counter(row for part in parts for row in part) == Counter(whole)
    assert all(subsequence(part, whole) for part in parts)
    taken = [
        {letters_key(text) for row in part for text in (row[:1] if by == "anchor" else row)}
        for part in parts
    ]
    assert len(set.union(*taken)) == sum(map(len, taken))
    assert len(parts[0]) <= round(share * len(rows))


@given(
    st.dictionaries(st.binary(min_size=1, max_size=4), st.integers(1, 5), min_size=1),
    st.tuples(st.integers(0, 20), st.integers(0, 20)),
    st.integers(),
)
def test_parts_are_filled_as_far_as_groups_fit(
    groups: dict[bytes, int], wanted: tuple[int, int], seed: int
) -> None:
    parts = assign(groups, wanted, seed)
    assert parts == assign(dict(reversed(groups.items())), wanted, seed)
    sizes = [sum(groups[key] for key in groups if parts[key] == part) for part in (0, 1, 2)]
    left = [groups[key] for key in groups if parts[key] == 0]
    for size, most in zip(sizes[1:], wanted, strict=True):
        assert size <= most
        # No group that stays in train would still fit.
        assert not left or size + min(left) > most


def test_the_law_bites() -> None:
    with pytest.raises(AssertionError):
        assert subsequence([("b", "b"), ("a", "a")], [("a", "a"), ("b", "b")])
