"""Removal of duplicates, and splits whose parts share no text."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.data.prepare.dedupe import (
    DuplicateRules,
    dedupe,
    mark_rows,
    remove_duplicates,
)
from simcse_kit.data.prepare.minhash import NearDuplicates, bands_for, jaccard
from simcse_kit.data.prepare.output import Summary
from simcse_kit.data.prepare.split import parse_parts, split
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.errors import ConfigError, DataError
from tests.small_data import sentences

TEXTS = ["A cat sat.", "a cat  sat", "A cat sat.", "a dog ran in the old park today", "?", "!"]
NEAR = "a dog ran in the old park today!! ok"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        ("exact", [*TEXTS[:2], *TEXTS[3:], NEAR]),
        ("normal", [TEXTS[0], *TEXTS[3:], NEAR]),
        ("near", [TEXTS[0], *TEXTS[3:]]),
    ],
)
def test_levels(tmp_path: Path, level: Any, kept: list[str]) -> None:
    file = write(tmp_path / "x.txt", "\n".join([*TEXTS, NEAR]) + "\n")
    summary = dedupe(file, tmp_path / "y.txt", level=level)
    assert (tmp_path / "y.txt").read_text().split("\n")[:-1] == kept
    assert (summary.read, summary.rows) == (7, len(kept))
    assert sum(summary.left_out.values()) == 7 - len(kept)


def test_spaces_of_a_tokenizer_make_no_new_text_and_symbols_do(tmp_path: Path) -> None:
    lines = [
        "It's $5, isn't it?",
        "it 's $ 5 , isn 't it ?",
        "It's &amp;quot;$5&amp;quot;, isn't it",
    ]
    different = ["It's 5, isn't it?", "1.5 or 15", "1 5 or 15", ":-)", ":-(", "\u263a", "\u2639"]
    other = ["I know C#", "I know C", "r\u00e9sum\u00e9", "resume", "15 or 15"]
    file = write(tmp_path / "x.txt", "\n".join([*lines, *different, *other]) + "\n")
    summary = dedupe(file, tmp_path / "y.txt")
    kept = (tmp_path / "y.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert kept == [lines[0], *(text for text in [*different, *other] if text != "1 5 or 15")]
    assert summary.left_out == {"duplicates up to case, punctuation and spacing": 3}


def test_near_duplicates_of_tokenised_text(tmp_path: Path) -> None:
    raw = "The king's men didn't pay $5 for the well-known horse that won 1,000 races."
    near = "the king 's men didn 't pay $ 5 for a well-known horse that won 1000 races ."
    file = write(tmp_path / "x.txt", f"{raw}\n{near}\n")
    dedupe(file, tmp_path / "y.txt", level="near")
    assert (tmp_path / "y.txt").read_text(encoding="utf-8") == f"{raw}\n"


def test_rows_and_anchors_and_other_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "id,sent0,sent1\n1,a,b\n2,A,b\n3,a,c\n")
    options = ReadOptions(columns=["sent0", "sent1"])
    dedupe(file, tmp_path / "y.csv", options)
    assert (tmp_path / "y.csv").read_text() == "id,sent0,sent1\n1,a,b\n3,a,c\n"
    dedupe(file, tmp_path / "y.csv", options, by="anchor", overwrite=True)
    assert (tmp_path / "y.csv").read_text() == "id,sent0,sent1\n1,a,b\n"


def test_no_header_stays_no_header(tmp_path: Path) -> None:
    dedupe(
        write(tmp_path / "x.tsv", "a\t1\na\t2\nb\t3\n"),
        tmp_path / "y.tsv",
        ReadOptions(columns=["0"]),
    )
    assert (tmp_path / "y.tsv").read_text() == "a\t1\nb\t3\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [("sent0,sent1\n", "no row under the header"), ("sent0,sent1\n,b\n", "blank anchor")],
)
def test_nothing_left_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "x.csv", text)
    with pytest.raises(DataError, match=message):
        dedupe(file, tmp_path / "y.csv", ReadOptions(on_bad_row="skip"))
    assert not (tmp_path / "y.csv").exists()


def test_a_file_may_be_cleaned_in_place(tmp_path: Path) -> None:
    file = write(tmp_path / "x.txt", "a\na\n")
    dedupe(file, file, overwrite=True)
    assert file.read_text() == "a\n"


def test_near_duplicates_are_those_of_brute_force() -> None:
    rng = random.Random(0)
    texts: list[str] = []
    for sentence in sentences(150, seed=3):
        words = (sentence + " and then it went home").split()
        for _ in range(3):
            changed = list(words)
            for _ in range(rng.randint(0, 2)):
                changed[rng.randrange(len(changed))] = rng.choice(words)
            texts.append(" ".join(changed))
    near = NearDuplicates(0.7)
    for text in texts:
        near.add((text,))
    expected: list[str] = []
    mask = []
    for text in texts:
        new = all(jaccard(text, other) < 0.7 for other in expected)
        mask.append(new)
        expected += [text] * new
    assert near.keep().tolist() == mask
    assert 100 < sum(mask) < 300


def test_rows_with_many_near_duplicates_take_little_memory() -> None:
    rng = random.Random(1)
    near = NearDuplicates(0.8)
    for _ in range(200):
        text = "".join(rng.choices("abcdefghij", k=60))
        for number in range(10):
            near.add((f"{text}{number}",))
    tracemalloc.start()
    kept = near.keep()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept.sum() == 200
    bands, _ = bands_for(0.8)
    assert peak < 40 * bands * 2000


def test_every_text_of_a_row_must_be_near() -> None:
    near = NearDuplicates(0.8)
    long = "the quick brown fox jumps over the lazy dog again and again"
    for row in ((long, "yes"), (long, "no"), (long + "s", "yes"), (long,), ("yes", long)):
        near.add(row)
    assert near.keep().tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_one_in_a_thousand(threshold: float) -> None:
    bands, size = bands_for(threshold)
    assert (1 - threshold**size) ** bands <= 1e-3
    assert bands * size <= 256


def parts(folder: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().split("\n")[1:-1] for path in sorted(folder.iterdir())}


def pairs_file(folder: Path) -> Path:
    rows = [f"{text},{text} {n}" for text in sentences(60) for n in range(len(text) % 3 + 1)]
    return write(folder / "x.csv", "\n".join(["sent0,sent1", *rows]) + "\n")


def test_parts_are_a_partition_without_shared_anchors(tmp_path: Path) -> None:
    file = pairs_file(tmp_path)
    rows = file.read_text().split("\n")[1:-1]
    summary = split(file, tmp_path / "parts", dev_test="0.2,0.1")
    found = parts(tmp_path / "parts")
    assert sorted(found) == ["dev", "test", "train"]
    assert sorted(chain(*found.values())) == sorted(rows)
    assert len(found["dev"]) == round(0.2 * len(rows))
    assert len(found["test"]) == round(0.1 * len(rows))
    anchors = [{row.partition(",")[0] for row in each} for each in found.values()]
    assert sum(map(len, anchors)) == len(set.union(*anchors)) == summary.figures["groups"]
    # Within a part the order is that of the file.
    assert all(each == [row for row in rows if row in set(each)] for each in found.values())


@pytest.mark.parametrize("by", ["anchor", "texts"])
def test_the_seed_decides_and_the_order_of_the_file_does_not(tmp_path: Path, by: Any) -> None:
    file = pairs_file(tmp_path)
    head, *rows = file.read_text().split("\n")[:-1]
    turned = write(tmp_path / "turned.csv", "\n".join([head, *reversed(rows)]) + "\n")
    split(file, tmp_path / "a", seed=3, by=by)
    split(turned, tmp_path / "b", seed=3, by=by)
    split(file, tmp_path / "c", seed=4, by=by)
    one, two, other = (parts(tmp_path / name) for name in "abc")
    assert {part: sorted(each) for part, each in one.items()} == {
        part: sorted(each) for part, each in two.items()
    }
    assert one != other


def test_anchors_are_the_same_but_for_case(tmp_path: Path) -> None:
    file = write(tmp_path / "x.txt", "A cat\na cat!\nb\nc\n")
    for seed in range(8):
        split(file, tmp_path / "p", dev_test="1,1", seed=seed, overwrite=True)
        train = (tmp_path / "p/train.txt").read_text()
        assert train == "A cat\na cat!\n"


def test_anchors_with_the_same_letters_and_digits_stay_together(tmp_path: Path) -> None:
    same = ["It's $5!", "it 's 5", "It&#39;s $ 5"]
    file = write(tmp_path / "x.txt", "\n".join([*same, "b", "c"]) + "\n")
    for seed in range(8):
        split(file, tmp_path / "p", dev_test="1,1", seed=seed, overwrite=True)
        train = (tmp_path / "p/train.txt").read_text(encoding="utf-8")
        assert train.split("\n")[:-1] == same


def test_rows_that_share_any_text_stay_together(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "sent0,sent1\na,b\nc,b\nc,d\ne,f\ng,h\n")
    split(file, tmp_path / "p", dev_test="1,1", by="texts")
    assert parts(tmp_path / "p")["train"] == ["a,b", "c,b", "c,d"]


def test_only_the_parts_asked_for(tmp_path: Path) -> None:
    split(pairs_file(tmp_path), tmp_path / "p", dev_test="10,0")
    assert sorted(parts(tmp_path / "p")) == ["dev", "train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dev_test": "0.5"}, "give two counts such as 1000,1000"),
        ({"dev_test": "0.6,0.4"}, "leave something to train on"),
        ({"dev_test": "0,0"}, "give two counts"),
        ({"dev_test": "a,b"}, "give two counts"),
        ({"dev_test": "nan,0.1"}, "give two counts"),
        ({"dev_test": "-1,5"}, "give two counts"),
        ({"dev_test": "100,100"}, "the train part would be empty"),
        ({"dev_test": "0.01,0.4"}, "the dev part would be empty"),
        ({"by": "row"}, "by is 'row'; allowed: anchor, texts"),
        ({"options": ReadOptions(columns=["x"])}, "no column 'x'"),
    ],
)
def test_bad_splits(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "x.csv", "sent0,sent1\na,b\nc,d\ne,f\n")
    with pytest.raises((ConfigError, DataError), match=message):
        split(file, tmp_path / "p", **options)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "fuzzy"}, "level is 'fuzzy'; allowed: exact, normal, near"),
        ({"threshold": 0.4}, r"threshold is 0\.4; allowed: 0\.5 to 1"),
        ({"by": "x"}, "by is 'x'; allowed: row, anchor"),
        ({"options": ReadOptions(columns=["0"])}, "a .txt file has no columns"),
    ],
)
def test_bad_dedupes(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "x.txt", "a\n")
    with pytest.raises((ConfigError, DataError), match=message):
        dedupe(file, tmp_path / "y.txt", **options)
    assert list(tmp_path.iterdir()) == [file]


def test_bad_rows_are_skipped_the_same_way_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "sent0,sent1\na,b\n,x\nc\nA,b\nc,d\n")
    with pytest.raises(DataError, match=r"x\.csv:3: the text in column 'sent0' is blank"):
        dedupe(file, tmp_path / "y.csv")
    summary = dedupe(file, tmp_path / "y.csv", ReadOptions(on_bad_row="skip"))
    assert (tmp_path / "y.csv").read_text() == "sent0,sent1\na,b\nc,d\n"
    assert summary.bad_rows == {"blank anchor": 1, "wrong number of fields": 1}
    split(file, tmp_path / "p", ReadOptions(on_bad_row="skip"), dev_test="1,0")
    assert parts(tmp_path / "p") == {"dev": ["c,d"], "train": ["a,b", "A,b"]}


def test_parts_of_counts_and_shares() -> None:
    assert parse_parts("10, 20") == (10, 20)
    assert parse_parts("0.1,0") == (0.1, 0.0)


def test_a_file_that_vanishes_while_rows_are_compared_leaves_no_output(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n", encoding="utf-8")

    def mark(rows: Iterable[tuple[str, ...]], rules: DuplicateRules, summary: Summary) -> bytearray:
        kept = mark_rows(rows, rules, summary)
        source.unlink()
        return kept

    with pytest.raises(DataError, match=r"in\.txt: no such file"):
        remove_duplicates(source, tmp_path / "out.txt", DEFAULTS, DuplicateRules(), mark=mark)
    assert list(tmp_path.iterdir()) == []
