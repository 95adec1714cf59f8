"""Loading the STS tasks: layouts, traps in the files, counts, and the Hub."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.results import STANDARD_TASKS
from simcse_kit.evaluation.tasks import sts
from simcse_kit.evaluation.tasks.sts import TASKS, load_task
from tests.evaluation.synthetic import PER_FILE, write_semeval

MSRPAR = "STS/STS12-en-test/STS.{}.MSRpar.txt"


def put(root: Path, kind: str, text: str) -> Path:
    path = root / MSRPAR.format(kind)
    path.write_bytes(text.encode("utf-8"))
    return path


def test_the_published_counts() -> None:
    counts = {name: TASKS[name].expected for name in STANDARD_TASKS}
    assert counts == {
        "STS12": 3108,
        "STS13": 1500,
        "STS14": 3750,
        "STS15": 3000,
        "STS16": 1186,
        "STSB": 1379,
        "SICKR": 4927,
    }
    assert all(task.citation for task in TASKS.values())


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_loads(senteval: Path, name: str) -> None:
    task = TASKS[name]
    sets = load_task(name, senteval)
    assert tuple(one.name for one in sets) == task.subsets
    for one in sets:
        assert len(one) == PER_FILE
        assert one.scale == task.scale
        assert one.gold.dtype == np.float64
        assert all(len(text.split()) == 6 for text in one.sentences1 + one.sentences2)


@pytest.mark.parametrize(
    "place", ["", "downstream", "data", "data/downstream", "SentEval/data/downstream"]
)
def test_the_layouts(senteval: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "user"
    shutil.copytree(senteval, root / place)
    for name in ("STS14", "STSB", "SICKR"):
        assert len(load_task(name, root)) == len(TASKS[name].subsets)


def test_a_layout_without_the_sts_folder(senteval: Path) -> None:
    assert load_task("STS13", senteval / "STS")[0].name == "FNWN"
    assert load_task("STSB", senteval / "STS")[0].name == "test"


def test_unscored_pairs_are_dropped_and_the_rest_stays_aligned(senteval: Path) -> None:
    put(senteval, "input", "a\tb\nc\td\ne\tf\ng\th\n")
    put(senteval, "gs", "1\n\n3.5\n \n")
    one = TASKS["STS12"]
    small = dataclasses.replace(one, subsets=("MSRpar",), expected=2).load(senteval)[0]
    assert (small.sentences1, small.sentences2) == (["a", "e"], ["b", "f"])
    assert small.gold.tolist() == [1.0, 3.5]


def test_only_newlines_end_a_line_and_words_are_rejoined(senteval: Path) -> None:
    odd = 'x\u2028y \t "z\u0085\x0bw\r\n'
    put(senteval, "input", f"\ufeff{odd}second\t  row  two\r\n")
    put(senteval, "gs", "5.0\r\n0.0\r\n")
    task = dataclasses.replace(TASKS["STS12"], subsets=("MSRpar",), expected=2)
    one = task.load(senteval)[0]
    assert one.sentences1 == ["x y", "second"]
    assert one.sentences2 == ['"z w', "row two"]


@pytest.mark.parametrize(
    ("inputs", "golds", "message"),
    [
        ("a\tb\nc\td\n", "1\n", r"STS\.gs\.MSRpar\.txt: 1 lines but STS\.input\.MSRpar\.txt has 2"),
        ("a\tb\nc\td\n", "1\n2,5\n", r"STS\.gs\.MSRpar\.txt:2: score '2,5' is not a number"),
        ("a\tb\nc\td\n", "1\nnan\n", r"STS\.gs\.MSRpar\.txt:2: score 'nan' is not a number"),
        ("a\tb\nc\td\n", "1\n1_0\n", r"STS\.gs\.MSRpar\.txt:2: score '1_0' is not a number"),
        ("a\tb\nc\td\n", "1\n7\n", r"STS\.gs\.MSRpar\.txt:2: score '7' is outside 0 to 5"),
        ("a\tb\nc d\n", "1\n2\n", r"STS\.input\.MSRpar\.txt:2: 1 tab-separated fields"),
        ("a\tb\nc\t \n", "1\n2\n", r"STS\.input\.MSRpar\.txt:2: sentence2 is blank; fetch"),
    ],
)
def test_bad_rows_name_file_and_line(senteval: Path, inputs: str, golds: str, message: str) -> None:
    put(senteval, "input", inputs)
    put(senteval, "gs", golds)
    with pytest.raises(DataError, match=message) as caught:
        load_task("STS12", senteval)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_name_their_line(senteval: Path) -> None:
    path = senteval / MSRPAR.format("input")
    path.write_bytes(b"a\tb\ncaf\xe9\td\n")
    with pytest.raises(DataError, match=r"MSRpar\.txt:2: is not UTF-8"):
        load_task("STS12", senteval)


def test_a_wrong_count_names_task_found_and_expected(senteval: Path) -> None:
    write_semeval(senteval / "STS/STS12-en-test", "MSRvid", [("a", "b", 1.0)] * 4)
    with pytest.raises(DataError, match=r"STS12: 28 scored pairs .* but 30 are published"):
        load_task("STS12", senteval)


def test_a_missing_file_or_folder_says_what_to_do(senteval: Path, tmp_path: Path) -> None:
    (senteval / MSRPAR.format("gs")).unlink()
    with pytest.raises(DataError, match=r"gs\.MSRpar\.txt: cannot be read .* incomplete"):
        load_task("STS12", senteval)
    shutil.rmtree(senteval / "SICK")
    with pytest.raises(DataError, match=r"no folder 'SICK' in .*downstream/SICK.*--data DIR"):
        load_task("SICKR", senteval)
    with pytest.raises(DataError, match="does not exist; pass --data DIR"):
        load_task("STSB", tmp_path / "nowhere")


def test_names_are_found_in_any_case_and_hinted(senteval: Path) -> None:
    assert load_task("stsb-DEV", senteval)[0].name == "dev"
    with pytest.raises(ConfigError, match=re.escape("unknown task 'SICK-R' (did you mean 'SICKR")):
        load_task("SICK-R", senteval)


class FakeTable(dict):
    @property
    def column_names(self) -> list[str]:
        return list(self)


def fake_hub(monkeypatch: pytest.MonkeyPatch, load) -> list[tuple[str, str]]:
    asked: list[tuple[str, str]] = []

    def load_dataset(repository: str, _: str | None, *, split: str):
        asked.append((repository, split))
        return load(repository, split)

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def rows(count: int) -> FakeTable:
    return FakeTable(
        sentence1=[f"first  {i}" for i in range(count)],
        sentence2=[f"second {i}" for i in range(count)],
        score=[1 + i % 5 for i in range(count)],
        genre=["x"] * count,
    )


def test_the_hub_gives_one_subset_and_its_count_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_hub(monkeypatch, lambda *_: rows(3750))
    (one,) = load_task("STS14")
    assert (one.name, len(one), one.sentences1[3]) == ("all", 3750, "first 3")
    assert one.gold[4] == 5.0
    assert asked == [("mteb/sts14-sts", "test")]
    with pytest.raises(DataError, match=r"STS13: 3750 scored pairs in the Hub copy .*1500"):
        load_task("STS13")


def test_the_hub_splits_of_sts_b(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"train": 5749, "validation": 1500, "test": 1379}
    asked = fake_hub(monkeypatch, lambda _, split: rows(counts[split]))
    assert [len(one) for one in load_task("STSB-full")] == [5749, 1500, 1379]
    assert len(load_task("STSB-dev")[0]) == 1500
    assert asked[-1] == ("mteb/stsbenchmark-sts", "validation")


def test_sick_test_from_the_hub_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = fake_hub(monkeypatch, lambda *_: rows(9927))
    with pytest.raises(DataError, match=r"SICKR: .*9,927 pairs, task SICKR-all.*4,927.*--data DIR"):
        load_task("SICKR")
    assert asked == []
    assert len(load_task("SICKR-all")[0]) == 9927


def test_no_network_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise ConnectionError("Couldn't reach the Hub.\nlong story")

    fake_hub(monkeypatch, refuse)
    with pytest.raises(DataError, match=r"cannot download mteb/sts12-sts .*--data DIR") as caught:
        load_task("STS12")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("score", None, "row 2 has"), ("sentence2", " ", "row 2 has"), ("score", 9, "outside 0 to 5")],
)
def test_bad_hub_rows(monkeypatch: pytest.MonkeyPatch, column: str, value, message: str) -> None:
    table = rows(1379)
    table[column][2] = value
    fake_hub(monkeypatch, lambda *_: table)
    with pytest.raises(DataError, match=message):
        load_task("STSB")
    fake_hub(monkeypatch, lambda *_: FakeTable(a=[], score=[]))
    with pytest.raises(DataError, match="no column sentence1, sentence2"):
        load_task("STSB")


@pytest.mark.parametrize("folder", ["sts", "sts/raw"])
@pytest.mark.parametrize("name", list(TASKS))
def test_the_real_files_have_the_published_counts(shared: Path, folder: str, name: str) -> None:
    sets = load_task(name, shared / folder)
    assert sum(map(len, sets)) == TASKS[name].expected
    assert not any(math.isnan(one.gold.sum()) for one in sets)


def test_pair_sets_must_be_aligned() -> None:
    with pytest.raises(DataError, match="must be equal"):
        sts.PairSet("x", ["a"], ["b", "c"], np.zeros(1))
