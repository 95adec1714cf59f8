"""Evaluation and comparison of pairs in memory, and tasks of the user's own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simcse_kit import compare, evaluate, register_task
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks import TASK_KINDS
from tests.evaluation.synthetic import BagOfWords, pair
from tests.evaluation.test_comparison import Noisy, pairs

ROWS = [("the  cat", "a cat", 4.5), ("the cat", "a dog", 2), ("red bird", "a river", 0.0)]
COLUMNS = ("sentence1", "sentence2", "score")


def as_dicts() -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def test_every_form_of_pairs_in_memory_gives_the_same_scores(encoder: BagOfWords) -> None:
    table = datasets.Dataset.from_list([{**row, "id": 1} for row in as_dicts()])
    forms: list[Any] = [ROWS, tuple(ROWS), iter(ROWS), [list(row) for row in ROWS], as_dicts()]
    forms += [table, {"pairs": ROWS}, {"pairs": table}, datasets.DatasetDict({"pairs": table})]
    frame = pd.DataFrame(as_dicts(), index=[5, 7, 9])
    forms += [frame, {"pairs": frame}, pa.table(frame)]
    forms += [frame.rename(columns={"score": "similarity", "sentence1": "Sentence1"})]
    found = [evaluate(encoder, form).tasks["pairs"] for form in forms]
    assert {(task.spearman, task.pairs, task.scale) for task in found} == {
        (found[0].spearman, 3, (0.0, 5.0))
    }
    assert [text for text in encoder.calls[0] if "cat" in text] == ["the cat", "a cat"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, ("a", "b")], r"pairs: pair 4 is \('a', 'b'\); give tuples"),
        ([*ROWS, "STSB"], "pair 4 is 'STSB'; give tuples"),
        ([*ROWS, {"sentence1": "a", "text": "b", "score": 1}], "rows with the columns sentence1"),
        ([*ROWS, ("a", " ", 1)], "pair 4: sentence2 is blank"),
        ([*ROWS, ("a", None, 1)], "not a string"),
        ([*ROWS, ("a", "b", "high")], "pair 4: score 'high' is not a finite number"),
        ([*ROWS, ("a", "b", float("nan"))], "score nan is not a finite number"),
        (ROWS[:2], "2 pairs; a correlation needs 3 or more"),
    ],
)
def test_bad_pairs_are_named_by_their_number(
    encoder: BagOfWords, rows: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(encoder, rows)
    assert encoder.calls == []


def test_bad_tables_are_refused_in_one_line(encoder: BagOfWords) -> None:
    frame = pd.DataFrame(as_dicts())
    with pytest.raises(DataError, match=r"pair 1 is .*'note': .*columns sentence1, sentence2 and"):
        evaluate(encoder, frame.rename(columns={"score": "note"}))
    with pytest.raises(DataError, match="pair 2: score None is not a finite number"):
        evaluate(encoder, frame.replace({"score": {2.0: None}}))
    with pytest.raises(DataError, match=r"the table cannot be read: .*columns of one type"):
        evaluate(encoder, frame.assign(sentence1=["a", 3, "b"]))


def test_a_given_scale_decides_which_pairs_are_positive(
    encoder: BagOfWords, tmp_path: Path
) -> None:
    rows = [("the cat", "a cat", 5.0), ("a cat", "a dog", 3.0), ("red bird", "a river", 1.0)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(f"{score},{a},{b}" for a, b, score in rows), encoding="utf-8")

    def positives(tasks: Any, **options: Any) -> int:
        geometry = evaluate(encoder, tasks, **options).geometry
        assert geometry is not None
        return geometry.positives

    assert [positives(rows), positives(str(path))] == [1, 1]
    for tasks in (rows, {"mine": rows}, str(path)):
        assert positives(tasks, scale=(1, 7)) == 0
    with pytest.raises(DataError, match="pair 1: score 5 is outside the scale of 0 to 4"):
        evaluate(encoder, rows, scale="0,4")
    with pytest.raises(ConfigError, match="scale is '5'; it must be the lowest and the highest"):
        evaluate(encoder, rows, scale="5")
    with pytest.raises(ConfigError, match=r"scale 0,5 is for files .* leave --scale out"):
        evaluate(encoder, "STSB", scale="0,5", data=tmp_path)


def test_a_named_model_goes_by_its_name() -> None:
    assert evaluate("mini", ROWS).model == "mini"
    assert evaluate("mini", ROWS, name="mine").model == "mine"


def test_compare_takes_encoders_by_name_and_pairs_in_memory() -> None:
    made = pairs(200)
    rows = list(zip(made.sentences1, made.sentences2, made.gold.tolist(), strict=True))
    found = compare({"good": Noisy(0.1), "bad": Noisy(9.0)}, rows, resamples=400)
    assert found.models == ["good", "bad"]
    assert [(each.task, each.verdict) for each in found.differences] == [("pairs", "worse")]
    unnamed = compare([Noisy(0.1), Noisy(0.1)], rows, resamples=400, flips=2)
    assert unnamed.models == ["Noisy", "Noisy (2)"]


def test_compare_refuses_bad_requests_before_it_encodes(encoder: BagOfWords) -> None:
    with pytest.raises(ConfigError, match="two encoders or more"):
        compare([encoder], ROWS)
    with pytest.raises(ConfigError, match="resamples is 10"):
        compare([encoder, encoder], ROWS, resamples=10)
    with pytest.raises(ConfigError, match="leave out 'own'"):
        compare([encoder, encoder], {"own": Length(), "pairs": ROWS})
    assert encoder.calls == []


class Length:
    """A task that scores the mean length of the vectors."""

    name = "length"

    def __init__(self, path: str = ""):
        self.texts = (path or "a red bird", "an old tree")

    def sentences(self) -> Sequence[str]:
        return self.texts

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:  # noqa: ARG002
        lengths = np.linalg.norm(vectors(self.texts), axis=1)
        counts = {"texts": len(self.texts)}
        return TaskScore(
            self.name, "length", "mean", {"mean": float(lengths.mean())}, counts, "mean length"
        )


@pytest.fixture
def length_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(TASK_KINDS, "_entries", dict(TASK_KINDS))
    register_task("mean-length", Length)
    return


@pytest.mark.usefixtures("length_task")
def test_a_registered_task_is_found_by_its_name(encoder: BagOfWords) -> None:
    report = evaluate(encoder, "mean-length,mean_length:the cat")
    assert list(report.beyond_sts) == ["length", "mean_length:the cat"]
    expected = np.mean([np.linalg.norm(encoder.vector(text)) for text in Length().texts])
    assert report.beyond_sts["length"].metrics["mean"] == pytest.approx(expected, rel=1e-6)
    assert "the cat" in encoder.calls[0]
    assert "mean length" in report.table()
    direct = evaluate(encoder, {"own": Length(), "pairs": ROWS})
    assert direct.beyond_sts["own"].metrics == report.beyond_sts["length"].metrics
    assert list(direct.tasks) == ["pairs"]


@pytest.mark.usefixtures("length_task")
def test_an_unknown_task_lists_the_closest_of_all_kinds(encoder: BagOfWords) -> None:
    for wrong, right in (("mean-lenght", "mean-length"), ("retreival", "retrieval")):
        with pytest.raises(ConfigError, match=f"unknown task '{wrong}' .did you mean '{right}'"):
            evaluate(encoder, wrong)


@pytest.mark.parametrize("name", ["stsb", "MR", "sts", "transfer", "retrieval", "no/name", "a:b"])
def test_a_task_cannot_take_another_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"exists already|cannot name a task"):
        register_task(name, Length)


def test_random_pairs_score_as_the_same_pairs_in_a_file(
    encoder: BagOfWords, tmp_path: Path
) -> None:
    rng = random.Random(1)
    rows = [pair(rng) for _ in range(20)]
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{g}\t{a}\t{b}\n" for a, b, g in rows), "utf-8")
    in_memory, from_file = evaluate(encoder, rows), evaluate(encoder, file)
    assert in_memory.tasks["pairs"].spearman == from_file.tasks["pairs"].spearman
    assert in_memory.geometry is not None
    assert from_file.geometry is not None
    assert in_memory.geometry.uniformity == from_file.geometry.uniformity
