"""Weights, rules of sampling and batches without duplicates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from simcse_kit.config import RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.corpus_cache import CorpusManifest
from simcse_kit.data.readers import Example
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.training.batching.distinct import DistinctBatches
from simcse_kit.training.batching.files_order import FilesOrder, Rule
from simcse_kit.training.batching.order import EpochOrder, ShuffledOrder
from simcse_kit.training.batching.subset import RowSubset
from simcse_kit.training.prepare import check
from simcse_kit.training.row_order import row_order
from tests.small_data import WORDS, sentences
from tests.training.conftest import MakeConfig, train
from tests.training.test_processes import NINE, file_of, printed_by, together
from tests.training.test_resume import interrupt, outcome, timeless
from tests.training.test_run import same_weights

RULES: list[Rule] = ["proportional", "round_robin", "one_per_batch"]


def indices(order: EpochOrder, epoch: int) -> list[int]:
    order.set_epoch(epoch)
    found = list(order)
    assert len(found) == len(order)
    return found


def batched(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def file_of_row(row: int, files: list[range]) -> int:
    return next(number for number, file in enumerate(files) if row in file)


# ------------------------------------------------------------------ weights and rules


@st.composite
def drawn_files(draw: st.DrawFn) -> tuple[list[range], list[float], int]:
    sizes = draw(st.lists(st.integers(8, 60), min_size=1, max_size=4))
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    weights = draw(st.lists(st.floats(0.5, 4), min_size=len(sizes), max_size=len(sizes)))
    return list(map(range, ends, ends[1:])), weights, draw(st.integers(1, 8))


@given(drawn=drawn_files(), rule=st.sampled_from(RULES), seed=st.integers(0, 99))
def test_an_epoch_has_the_length_of_a_pass_and_files_have_their_shares(
    drawn: tuple[list[range], list[float], int], rule: Rule, seed: int
) -> None:
    files, weights, batch_size = drawn
    rows = files[-1].stop
    try:
        order = FilesOrder(files, weights, rule, batch_size=batch_size, seed=seed)
    except ConfigError:  # a weight without effect
        return
    batches = rows // batch_size
    for epoch in (0, 1, 7):
        found = [index % rows for index in indices(order, epoch)]
        assert len(found) == batches * batch_size
        shares = Counter(file_of_row(row, files) for row in found)
        unit = 1 if rule == "proportional" else batch_size
        for number, weight in enumerate(weights):
            exact = len(found) * weight / sum(weights)
            assert abs(shares[number] - exact) <= unit
        if rule != "proportional":
            for batch in batched(found, batch_size):
                assert len({file_of_row(row, files) for row in batch}) == 1
                assert len(set(batch)) == batch_size


@given(drawn=drawn_files(), rule=st.sampled_from(RULES))
def test_no_row_is_read_twice_in_the_same_pass(
    drawn: tuple[list[range], list[float], int], rule: Rule
) -> None:
    files, weights, batch_size = drawn
    try:
        order = FilesOrder(files, weights, rule, batch_size=batch_size, seed=0)
    except ConfigError:
        return
    found = [index for epoch in range(4) for index in indices(order, epoch)]
    assert len(set(found)) == len(found)


def test_every_row_is_read_although_an_epoch_has_only_a_part_of_the_file() -> None:
    files = [range(0, 10), range(10, 50)]
    order = FilesOrder(files, [1, 1], "proportional", batch_size=5, seed=0)
    # 25 of 40 rows in an epoch: two epochs have the 40 of the first pass, and 10 of the second.
    found = [i for epoch in (0, 1) for i in indices(order, epoch) if i % 50 >= 10]
    assert sorted(found)[:40] == list(range(10, 50))
    assert all(index >= 60 for index in sorted(found)[40:])
    assert order.passes == [2.5, 0.625]


def test_files_in_turn_and_in_random_order() -> None:
    files = [range(0, 40), range(40, 80), range(80, 120)]

    def turns(rule: Rule, weights: list[float], epoch: int = 0) -> list[int]:
        order = FilesOrder(files, weights, rule, batch_size=4, seed=3)
        found = [file_of_row(index % 120, files) for index in indices(order, epoch)]
        return [batch[0] for batch in batched(found, 4)]

    assert turns("round_robin", [1, 1, 1]) == [0, 1, 2] * 10
    assert turns("round_robin", [2, 1, 1])[:8] == [0, 1, 2, 0, 0, 1, 2, 0]
    random = turns("one_per_batch", [1, 1, 1])
    assert Counter(random) == {0: 10, 1: 10, 2: 10}
    assert random != [0, 1, 2] * 10
    assert random != turns("one_per_batch", [1, 1, 1], epoch=1)


def test_small_files_are_refused_only_for_batches_of_one_file() -> None:
    files = [range(0, 3), range(3, 103)]
    with pytest.raises(ConfigError, match=r"entry 1 of data\.train has 3 rows .* smaller --batch"):
        FilesOrder(files, [1, 1], "one_per_batch", batch_size=4, seed=0)
    assert len(FilesOrder(files, [1, 1], "proportional", batch_size=4, seed=0)) == 100


def test_a_weight_without_effect_is_refused() -> None:
    files = [range(0, 40), range(40, 80)]
    with pytest.raises(ConfigError, match=r"gives entry 2 of data\.train no place in an epoch"):
        FilesOrder(files, [1000, 1], "round_robin", batch_size=8, seed=0)


# ------------------------------------------------------------------ batches without duplicates


class Rows:
    """Rows of given texts."""

    def __init__(self, texts: list[tuple[str, ...]]):
        self.texts = texts

    def read(self, numbers: Any) -> list[Example]:
        return [Example(self.texts[number % len(self.texts)]) for number in numbers]

    def batches(self, order: EpochOrder, size: int, epoch: int) -> Iterator[list[str]]:
        for batch in batched(indices(order, epoch), size):
            assert len(batch) == size
            yield [text for row in self.read(batch) for text in set(row.texts[:2])]


def distinct(rows: Rows, order: EpochOrder, batch_size: int) -> DistinctBatches:
    return DistinctBatches(order, rows.read, batch_size=batch_size)


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=4, max_size=80),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_no_batch_has_a_text_twice(
    pairs: list[tuple[int, int]], batch_size: int, seed: int
) -> None:
    # Anchors and positives share their texts; the third text is the same everywhere.
    rows = Rows([(str(a), str(b), "negative") for a, b in pairs])
    shuffled = ShuffledOrder(len(pairs), seed)
    try:
        order = distinct(rows, shuffled, batch_size)
    except DataError:  # too few different texts
        return
    for epoch in (0, 3):
        found = list(rows.batches(order, batch_size, epoch))
        assert len(found) == len(pairs) // batch_size
        for texts in found:
            assert len(set(texts)) == len(texts)


def test_without_repetitions_the_order_stays() -> None:
    rows = Rows([(f"a{number}", f"p{number}") for number in range(50)])
    shuffled = ShuffledOrder(50, 1)
    order = distinct(rows, shuffled, 8)
    for epoch in (0, 1):
        assert indices(order, epoch) == indices(shuffled, epoch)[:48]


def test_rows_that_share_a_text_wait_for_another_batch_of_the_epoch() -> None:
    # Ten groups of five rows with one positive: every row has a place.
    rows = Rows([(f"a{number}", f"p{number % 10}") for number in range(50)])
    found = indices(distinct(rows, ShuffledOrder(50, 1), 5), 0)
    first_pass = [index for index in found if index < 50]
    assert len(set(first_pass)) == len(first_pass) >= 40


def test_one_text_in_most_rows_does_not_stop_an_epoch() -> None:
    rows = Rows([(f"a{number}", "same" if number % 4 else f"p{number}") for number in range(400)])
    order = distinct(rows, ShuffledOrder(400, 2), 8)
    for texts in rows.batches(order, 8, 0):
        assert texts.count("same") <= 1


def test_too_few_different_texts_are_refused_with_a_size_that_works() -> None:
    rows = Rows([(f"a{number % 3}", f"p{number % 3}") for number in range(30)])
    with pytest.raises(DataError, match=r"has 4 rows, but only 3 rows .* --batch-size 3 or less"):
        distinct(rows, ShuffledOrder(30, 0), 4)
    assert len(list(rows.batches(distinct(rows, ShuffledOrder(30, 0), 3), 3, 0))) == 10


@pytest.mark.parametrize("rule", RULES)
def test_rules_hold_without_duplicates(rule: Rule) -> None:
    files = [range(0, 40), range(40, 120)]
    rows = Rows([(f"a{n}", f"p{n % 13}") for n in range(120)])
    by_file = FilesOrder(files, [1, 1], rule, batch_size=6, seed=5)
    order = distinct(rows, by_file, 6)
    shares = Counter(file_of_row(i % 120, files) for i in indices(order, 0))
    if rule == "proportional":
        assert abs(shares[0] - 60) < 15
    else:
        assert shares == {0: 60, 1: 60}
        for batch in batched(indices(order, 0), 6):
            assert len({file_of_row(i % 120, files) for i in batch}) == 1
    for texts in rows.batches(order, 6, 2):
        assert len(set(texts)) == len(texts)


# ------------------------------------------------------------------ runs


def sampled(make: MakeConfig, tmp_path: Path, name: str, *more: dict[str, Any]) -> RunConfig:
    """A run on two files of pairs, of which the second repeats its positives."""
    texts = sentences(120)
    pairs = [(text, f"{text} {WORDS[n % 7]}") for n, text in enumerate(texts[:40])]
    repeated = [(text, texts[n % 9]) for n, text in enumerate(texts[40:])]
    paths = []
    for place, rows in (("few.jsonl", pairs), ("many.jsonl", repeated)):
        lines = [json.dumps({"anchor": a, "positive": b}) + "\n" for a, b in rows]
        (tmp_path / place).write_text("".join(lines), encoding="utf-8")
        paths.append(str(tmp_path / place))
    data = {
        "train": paths,
        "sampling": "one_per_batch",
        "weights": [1.0, 3.0],
        "no_duplicates": True,
    }
    base = {"data": data, "training": {"batch_size": 4, "max_steps": 40}}
    return make(base, *more, name=name, kind="pairs")


@pytest.mark.long
def test_a_resumed_run_with_sampling_equals_an_uninterrupted_one(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 27 batches are an epoch: the runs stop in the second one.
    whole = train(sampled(make_config, tmp_path, "whole"))
    config = sampled(make_config, tmp_path, "cut")
    interrupt(config, monkeypatch, share=37.5 / 40)
    cut = train(config, resume=True)
    assert cut.sentences < whole.sentences
    assert outcome(cut) == outcome(whole)
    assert timeless(cut.output) == timeless(whole.output)
    assert same_weights(cut.output / "model.safetensors", whole.output / "model.safetensors")
    changed = sampled(make_config, tmp_path, "cut", {"data": {"weights": [1.0, 1.0]}})
    with pytest.raises(ConfigError, match=r"data\.weights was \[1\.0, 3\.0\], is \[1\.0, 1\.0\]"):
        train(changed, resume=True)


def test_the_settings_decide_what_a_run_reads(make_config: MakeConfig, tmp_path: Path) -> None:
    short = {"training": {"max_steps": 4}}
    changes: list[dict[str, Any]] = [{}, {"weights": [3.0, 1.0]}, {"sampling": "round_robin"}]
    outputs = [
        train(sampled(make_config, tmp_path, f"out-{n}", short, {"data": change})).output
        for n, change in enumerate(changes)
    ]
    first, *others = (output / "model.safetensors" for output in outputs)
    assert not any(same_weights(first, other) for other in others)


@pytest.mark.slow
def test_two_processes_sample_as_one(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = train(sampled(make_config, tmp_path, "alone", NINE, {"training": {"batch_size": 5}}))
    config = sampled(make_config, tmp_path, "shared", NINE, {"training": {"batch_size": 5}})
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    running = together(2, tmp_path, "train", "--config", file_of(config, tmp_path))
    printed_by(running)
    assert [one.returncode for one in running] == [0, 0], (tmp_path / "0.log").read_text()
    ours, theirs = (
        load_file(output / "model.safetensors") for output in (alone.output, tmp_path / "shared")
    )
    for name, weight in ours.items():
        assert_close(theirs[name], weight, rtol=0, atol=1e-4)


def test_sampling_of_one_file_is_said_to_have_no_effect(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    check(make_config({"data": {"weights": [2.0], "sampling": "round_robin"}}))
    assert "data.weights = [2.0] has no effect: data.train has one entry" in caplog.text
    assert "data.sampling = round_robin has no effect" in caplog.text
    caplog.clear()
    check(make_config())
    assert "no effect" not in caplog.text


def test_entries_are_counted_without_held_out_rows(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, rows in (("folder/a.txt", 6), ("folder/b.txt", 5), ("last.txt", 9)):
        lines = "".join(f"{name} {number}\n" for number in range(rows))
        (tmp_path / name).write_text(lines, encoding="utf-8")
    names = [str(folder), str(tmp_path / "last.txt")]
    config = RunConfig.model_validate(
        {
            "data": {"train": names, "sampling": "round_robin"},
            "training": {"batch_size": 4},
        }
    )
    corpus = Corpus.build(names, count_files=True)
    assert corpus.report.file_rows == [6, 5, 9]
    order = row_order(config, corpus, RowSubset(corpus, [0, 10, 11, 19]))
    assert list(order.source_rows) == [9, 7]


def test_a_corpus_of_an_earlier_version_is_built_again_only_for_sampling(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\ntwo\n", encoding="utf-8")
    built = Corpus.build(tmp_path)
    manifest = built.path.with_suffix(".json")
    now = CorpusManifest.from_json(manifest.read_text())
    assert now.file_rows == [2, 2]
    manifest.write_text(replace(now, file_rows=[]).to_json())
    assert Corpus.build(tmp_path).report.file_rows == []
    assert Corpus.build(tmp_path, count_files=True).report.file_rows == [2, 2]


@pytest.mark.usefixtures("no_weights")
def test_weights_that_do_not_match_the_files_are_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = sampled(make_config, tmp_path, "out", {"data": {"weights": [1.0]}})
    with pytest.raises(ConfigError, match=r"length of data\.weights is 1, that of data\.train 2"):
        check(config)
    for wrong in ([1.0, 0.0], [1.0, -2.0]):
        with pytest.raises(ConfigError, match="must be numbers greater than 0"):
            sampled(make_config, tmp_path, "out", {"data": {"weights": wrong}})
    with pytest.raises(ConfigError, match="sampling"):
        sampled(make_config, tmp_path, "out", {"data": {"sampling": "random"}})
