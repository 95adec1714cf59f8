"""Held-out rows share no text with the rows of training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from simcse_kit.data.corpus import Corpus
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Example
from simcse_kit.training.batching.subset import RowSubset, drawn_one_by_one, rows_digest, split_rows


def corpus_of(path: Path, rows: list[dict[str, object]]) -> Corpus:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Corpus.build(path)


def training_rows(subset: RowSubset) -> list[Example]:
    return subset.__getitems__(range(len(subset)))


def texts_of(rows: list[Example], columns: slice) -> set[str]:
    return {text.lower() for row in rows for text in row.texts[columns]}


def test_rows_with_one_anchor_stay_together(tmp_path: Path) -> None:
    rows = [
        {"anchor": f"Question {q}" if a else f"question, {q}?", "positive": f"answer {q} {a}"}
        for q in range(60)
        for a in range(5)
    ]
    random.Random(0).shuffle(rows)
    subset, held = split_rows(corpus_of(tmp_path / "rows.jsonl", rows), 512, 42)
    assert len(held) == 30
    assert len(subset) + len(held) == 300
    numbers = {row.texts[0].rpartition(" ")[2].strip("?") for row in held}
    assert not numbers & {
        row.texts[0].rpartition(" ")[2].strip("?") for row in training_rows(subset)
    }


def test_rows_stay_together_through_other_rows(tmp_path: Path) -> None:
    """a-b, b-c, c-d: no text of one end occurs at the other."""
    rows = [
        {"anchor": f"text {chain} {link}", "positive": f"text {chain} {link + 1}"}
        for chain in range(40)
        for link in range(4)
    ]
    subset, held = split_rows(corpus_of(tmp_path / "rows.jsonl", rows), 16, 7)
    assert len(held) == 16
    assert not texts_of(held, slice(None)) & texts_of(training_rows(subset), slice(None))


def test_hard_negatives_count_too(tmp_path: Path) -> None:
    rows = [
        {"anchor": f"a {n}", "positive": f"p {n}", "negatives": [f"p {n ^ 1}", f"n {n}"]}
        for n in range(100)
    ]
    subset, held = split_rows(corpus_of(tmp_path / "rows.jsonl", rows), 10, 0)
    assert len(held) == 10
    assert not texts_of(held, slice(None)) & texts_of(training_rows(subset), slice(None))


@pytest.mark.parametrize(
    ("row", "shared", "columns"),
    [
        (lambda n: {"anchor": f"a {n}", "positive": "yes"}, "anchor", slice(1)),
        (
            lambda n: {"anchor": f"a {n}", "positive": f"p {n}", "negative": "no"},
            "anchor or positive",
            slice(2),
        ),
        (lambda n: {"anchor": f"a {n}", "positive": "yes", "negative": "no"}, "anchor", slice(1)),
    ],
)
def test_one_text_in_all_rows_leaves_the_anchors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: object, shared: str, columns: slice
) -> None:
    rows = [row(n // 2) for n in range(200)]  # type: ignore[operator]
    subset, held = split_rows(corpus_of(tmp_path / "rows.jsonl", rows), 512, 1)
    assert len(held) == 20
    assert not texts_of(held, columns) & texts_of(training_rows(subset), columns)
    (message,) = caplog.messages
    assert f"share no {shared} with training rows, so their loss is lower" in message


def test_where_all_rows_have_one_anchor_none_is_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, object]] = [{"anchor": "a", "positive": f"p {n}"} for n in range(50)]
    subset, held = split_rows(corpus_of(tmp_path / "rows.jsonl", rows), 512, 1)
    assert (len(subset), held) == (50, [])
    assert "share no anchor" in caplog.text


@pytest.mark.parametrize("thanks", [False, True])
def test_documents_are_held_out_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, thanks: bool
) -> None:
    """Also where all of them end with the same sentence."""
    file = tmp_path / "documents.txt"
    documents = [
        [f"sentence {d} {s}" for s in range(4)] + ["Thank you ."] * thanks for d in range(80)
    ]
    file.write_text("\n\n".join("\n".join(lines) for lines in documents) + "\n")
    corpus = Corpus.build(file, ReadOptions(documents=2))
    subset, held = split_rows(corpus, 20, 3)
    assert 16 <= len(held) <= 20

    def numbers(rows: list[Example]) -> set[str]:
        return {row.texts[0].split()[1] for row in rows}

    assert not numbers(held) & numbers(training_rows(subset))
    assert ("share no document" in caplog.text) is thanks


def test_without_equal_texts_the_rows_are_those_of_earlier_versions(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"anchor": f"a {n}", "positive": f"p {n}"} for n in range(300)]
    corpus = corpus_of(tmp_path / "rows.jsonl", rows)
    for seed in range(3):
        _, held = split_rows(corpus, 20, seed)
        assert [row.row for row in held] == drawn_one_by_one(300, 20, seed)


def test_the_seed_decides(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"anchor": f"a {n // 3}", "positive": f"p {n}"} for n in range(300)
    ]
    corpus = corpus_of(tmp_path / "rows.jsonl", rows)
    found = [[row.row for row in split_rows(corpus, 30, seed)[1]] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert rows_digest(found[0]) == rows_digest(found[1]) != rows_digest(found[2])


def test_a_labelled_pair_keeps_its_texts(tmp_path: Path) -> None:
    file = tmp_path / "labelled.csv"
    lines = [f"a {n // 4},b {n},{n % 2}" for n in range(80)]
    file.write_text("first,second,label\n" + "\n".join(lines) + "\n")
    corpus = Corpus.build(file, ReadOptions(columns=["first", "second"], label="label"))
    subset, held = split_rows(corpus, 8, 0)
    assert len(held) == 8
    assert not texts_of(held, slice(None)) & texts_of(training_rows(subset), slice(None))
