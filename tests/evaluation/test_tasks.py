"""Tasks other than STS, compared with scikit-learn and values computed by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, ndcg_score, v_measure_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.tasks import transfer_files
from simcse_kit.evaluation.tasks.load import load_all_tasks
from simcse_kit.evaluation.tasks.paraphrase import average_precision, best_thresholds
from simcse_kit.evaluation.tasks.retrieval import ranking_metrics, search, with_engine
from simcse_kit.evaluation.tasks.transfer import best_c, load_transfer
from simcse_kit.evaluation.tasks.transfer_files import SPECS
from tests.evaluation.synthetic import BagOfWords

WORDS = "good bad film actor story why where who is the of very dull great".split()


def sentence(rng: np.random.Generator, label: int = 0) -> str:
    words = list(rng.choice(WORDS, size=rng.integers(2, 7)))
    return " ".join([*words, "great" if label and rng.random() < 0.7 else "dull"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CR, SST2, TREC and MRPC in small, with counts to match."""
    rng = np.random.default_rng(0)
    counts = {
        "CR": {"all": 60},
        "SST2": {"train": 60, "dev": 30, "test": 30},
        "TREC": {"train": 80, "test": 30},
        "MRPC": {"train": 60, "test": 30},
    }
    small = {name: replace(SPECS[name], expected=counts[name]) for name in counts}
    for name, spec in small.items():
        monkeypatch.setitem(transfer_files.SPECS, name, spec)
    base = tmp_path / "data" / "downstream"
    for sub in ("CR", "SST/binary", "TREC", "MRPC"):
        (base / sub).mkdir(parents=True)
    for end, label in (("pos", 1), ("neg", 0)):
        lines = [sentence(rng, label) for _ in range(30)]
        (base / "CR" / f"custrev.{end}").write_text("\n".join(lines) + "\n", "latin-1")
    for split, n in counts["SST2"].items():
        lines = [f"{sentence(rng, i % 2)}\t{i % 2}\n" for i in range(n)]
        (base / "SST/binary" / f"sentiment-{split}").write_text("".join(lines), "utf-8")
    kinds = ["ABBR", "DESC", "ENTY", "HUM"]
    for file, n in (("train_5500", 80), ("TREC_10", 30)):
        lines = [f"{kinds[i % 4]}:x {sentence(rng, i % 2)} caf\xe9\n" for i in range(n)]
        (base / "TREC" / f"{file}.label").write_text("".join(lines), "latin-1")
    for split, n in counts["MRPC"].items():
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"]
        for i in range(n):
            first = sentence(rng)
            second = first + ' "dull' if i % 3 else sentence(rng, 1)
            lines.append(f"{int(i % 3 > 0)}\t1\t2\t{first}\t{second}\n")
        (base / "MRPC" / f"msr_paraphrase_{split}.txt").write_text("".join(lines), "utf-8")
    return tmp_path


def by_length(texts: list[str], labels: list[int]) -> tuple[list[str], np.ndarray]:
    rows = sorted(zip(texts, labels, strict=True), key=lambda row: (len(row[0].split()), row[1]))
    return [text for text, _ in rows], np.array([label for _, label in rows])


def search_c(exponents: range) -> GridSearchCV:
    folds = StratifiedKFold(10, shuffle=True, random_state=1111)
    grid = {"C": [2.0**power for power in exponents]}
    return GridSearchCV(
        LogisticRegression(random_state=1111, tol=1e-6, max_iter=10_000), grid, cv=folds
    )


def vectors(encoder: BagOfWords, texts: list[str]) -> np.ndarray:
    return np.asarray(encoder.encode(texts), dtype=np.float32).astype(float)


@pytest.mark.slow
def test_nested_cross_validation_by_hand(folder: Path, encoder: BagOfWords) -> None:
    base = folder / "data" / "downstream" / "CR"
    pos, neg = (base.joinpath(f"custrev.{end}").read_text().splitlines() for end in ("pos", "neg"))
    texts, y = by_length(pos + neg, [1] * 30 + [0] * 30)
    x = vectors(encoder, texts)
    scores = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=1111).split(x, y):
        scores.append(search_c(range(-2, 4)).fit(x[train], y[train]).score(x[test], y[test]))
    found = evaluate(encoder, "CR", data=folder).beyond_sts["CR"]
    assert found.metrics["accuracy"] == pytest.approx(100 * np.mean(scores))
    assert 50 < found.metrics["accuracy"] < 100


@pytest.mark.slow
def test_trec_by_hand(folder: Path, encoder: BagOfWords) -> None:
    sides = []
    for file in ("train_5500", "TREC_10"):
        path = folder / "data" / "downstream" / "TREC" / f"{file}.label"
        rows = [line.split(" ", 1) for line in path.read_text("latin-1").splitlines()]
        labels = [["ABBR", "DESC", "ENTY", "HUM"].index(label[:-2]) for label, _ in rows]
        texts, y = by_length([text for _, text in rows], labels)
        sides.append((vectors(encoder, texts), y))
    expected = search_c(range(-1, 6)).fit(*sides[0]).score(*sides[1])
    found = evaluate(encoder, "trec", data=folder).beyond_sts["TREC"]
    assert found.metrics["accuracy"] == pytest.approx(100 * expected)
    assert found.counts == {"train": 80, "test": 30}


@pytest.mark.long
def test_mrpc_by_hand(folder: Path, encoder: BagOfWords) -> None:
    sides = []
    for split in ("train", "test"):
        path = folder / "data" / "downstream" / "MRPC" / f"msr_paraphrase_{split}.txt"
        rows = [line.split("\t") for line in path.read_text("utf-8-sig").splitlines()[1:]]
        rows.sort(key=lambda row: (len(row[3].split()), len(row[4].split()), int(row[0])))
        u, v = (vectors(encoder, [row[column] for row in rows]) for column in (3, 4))
        sides.append((np.c_[abs(u - v), u * v], np.array([int(row[0]) for row in rows])))
    model = search_c(range(-1, 6)).fit(*sides[0])
    found = evaluate(encoder, "MRPC", data=folder).beyond_sts["MRPC"].metrics
    assert found["accuracy"] == pytest.approx(100 * model.score(*sides[1]))
    assert found["f1"] == pytest.approx(100 * f1_score(sides[1][1], model.predict(sides[1][0])))


def test_sst2_by_hand(folder: Path, encoder: BagOfWords) -> None:
    side = {}
    for split in ("train", "dev", "test"):
        path = folder / "data" / "downstream" / "SST/binary" / f"sentiment-{split}"
        rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
        texts, y = by_length([text for text, _ in rows], [int(label) for _, label in rows])
        side[split] = (vectors(encoder, texts), y)
    models = [
        LogisticRegression(C=2.0**p, tol=1e-6, max_iter=10_000).fit(*side["train"])
        for p in range(-2, 4)
    ]
    best = max(models, key=lambda model: model.score(*side["dev"]))
    found = evaluate(encoder, "SST2", data=folder).beyond_sts["SST2"].metrics
    assert found["accuracy"] == pytest.approx(100 * best.score(*side["test"]))


def test_c_is_chosen_by_rounded_accuracies_the_smallest_of_equals() -> None:
    assert best_c((0.5, 1.0, 2.0, 4.0), (0.8, 0.85578, 0.855822, 0.85)) == (1.0, 85.58)
    assert best_c((0.5, 1.0), (0.8, 0.8001)) == (1.0, 80.01)


def test_a_wrong_count_is_refused(folder: Path, encoder: BagOfWords) -> None:
    path = folder / "data" / "downstream" / "CR" / "custrev.pos"
    path.write_text(path.read_text() + "one more\n")
    with pytest.raises(DataError, match=r"CR: 61 rows .* 60 are published"):
        evaluate(encoder, "CR", data=folder)
    assert encoder.calls == []


def test_blank_lines_count_and_become_a_dot(folder: Path) -> None:
    path = folder / "data" / "downstream" / "CR" / "custrev.pos"
    path.write_text("\n".join(["", *path.read_text().splitlines()[1:]]) + "\n")
    texts = load_transfer("CR", folder).sentences()
    assert len(texts) == 60
    assert "." in texts


@pytest.mark.parametrize(
    ("task", "message"),
    [("MR", "no folder 'MR'"), ("retrieval:", "names no file"), ("nosuch", "unknown task")],
)
def test_bad_entries(folder: Path, encoder: BagOfWords, task: str, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        evaluate(encoder, task, data=folder)


def test_a_bad_label_is_named_with_its_line(folder: Path, encoder: BagOfWords) -> None:
    path = folder / "data" / "downstream" / "TREC" / "TREC_10.label"
    path.write_text("NOPE:x what\n" + path.read_text("latin-1"), "latin-1")
    with pytest.raises(DataError, match=r"TREC_10.label:1: label 'NOPE' is not one of ABBR"):
        evaluate(encoder, "TREC", data=folder)


def test_transfer_tasks_follow_sts_in_any_order_of_the_names(folder: Path, senteval: Path) -> None:
    shutil.copytree(folder / "data", senteval, dirs_exist_ok=True)
    loaded = load_all_tasks(["mrpc", "sst2", "stsb", "MRPC"], senteval)
    assert list(loaded) == ["STSB", "MRPC", "SST2"]


def test_average_precision_with_ties_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        scores, labels = rng.integers(0, 8, 40) / 8, rng.random(40) < 0.4
        expected = average_precision_score(labels, scores)
        assert average_precision(scores, labels) == pytest.approx(expected)
        by_f1, by_accuracy = best_thresholds(scores, labels)
        f1 = {t: f1_score(labels, scores >= t) for t in np.unique(scores)}
        assert f1[by_f1] == pytest.approx(max(f1.values()))
        right = {t: ((scores >= t) == labels).mean() for t in np.unique(scores)}
        assert right[by_accuracy] == pytest.approx(max(right.values()))


class Given:
    """An encoder that knows each sentence's vector."""

    def __init__(self, table: dict[str, list[float]]):
        self.table = table

    def encode(self, sentences: list[str]) -> np.ndarray:
        return np.array([self.table[text] for text in sentences])


def test_the_threshold_comes_from_dev(tmp_path: Path) -> None:
    angle = {"x": 0.0, "a": 0.2, "b": 0.5, "c": 0.8, "d": 1.1}
    encoder = Given({key: [math.cos(v), math.sin(v)] for key, v in angle.items()})
    rows = ["dev\t1\tx\ta", "dev\t0\tx\tb", "test\t1\tx\ta", "test\t1\tx\tc", "test\t0\tx\td"]
    path = tmp_path / "pairs.tsv"
    path.write_text("split\tlabel\tsentence1\tsentence2\n" + "\n".join(rows) + "\n")
    found = evaluate(encoder, f"paraphrase:{path}").beyond_sts["pairs"].metrics
    assert found["average_precision"] == pytest.approx(100)
    assert found["f1_threshold"] == pytest.approx(math.cos(0.2))
    assert found["f1"] == pytest.approx(200 / 3)  # one hit, one miss
    assert found["accuracy"] == pytest.approx(200 / 3)
    path.write_text("label\tsentence1\tsentence2\n1\tx\ta\n2\tx\tb\n")
    with pytest.raises(DataError, match=r"pairs.tsv:3: label '2' is not 0 or 1"):
        evaluate(encoder, f"paraphrase:{path}")


def test_ranking_metrics_against_scikit_learn_and_by_hand() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        grade = rng.integers(0, 4, 30) * (rng.random(30) < 0.4)
        grade[rng.integers(30)] = 2
        score = rng.permutation(30).astype(float)
        ranked = [str(key) for key in np.argsort(-score)]
        found = ranking_metrics(ranked, {str(i): int(g) for i, g in enumerate(grade)})
        assert found["ndcg@10"] == pytest.approx(ndcg_score([grade], [score], k=10))
        assert found["map@100"] == pytest.approx(average_precision_score(grade > 0, score))
        place = rankdata(-score)[grade > 0].min()
        assert found["mrr@10"] == pytest.approx(1 / place if place <= 10 else 0)
    by_hand = ranking_metrics(["a", "b", "c"], {"b": 1, "z": 1})
    assert by_hand["recall@1"] == 0
    assert by_hand["recall@10"] == 0.5
    assert by_hand["ndcg@10"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_search_is_exact_and_passes_over_the_query_itself() -> None:
    rng = np.random.default_rng(3)
    documents = rng.normal(size=(90, 4)).astype(np.float32)
    queries = rng.normal(size=(600, 4)).astype(np.float32)
    unit = [side / np.linalg.norm(side, axis=1)[:, None] for side in (queries, documents)]
    expected = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    assert search(queries, documents, 7, skip=[-1] * 600)[0] == expected[:, :7].tolist()
    best = [int(line[0]) for line in expected]
    assert search(queries, documents, 6, skip=best)[0] == expected[:, 1:7].tolist()
    assert search(queries, documents, 100, skip=best)[0] == expected[:, 1:].tolist()


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "good film", "d2": "bad film", "d3": "who is the actor"}
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": "q1", "text": "good good film"}), '{"_id": "q2", "text": "why"}']
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    return folder


def test_a_beir_folder(tmp_path: Path, encoder: BagOfWords) -> None:
    found = evaluate(encoder, f"retrieval:{beir(tmp_path / 'tiny')}").beyond_sts["tiny"]
    assert found.counts == {"queries": 1, "documents": 3}
    assert found.metrics["ndcg@10"] == found.metrics["mrr@10"] == pytest.approx(100)
    (tmp_path / "tiny/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td9\t1\n")
    with pytest.raises(DataError, match=r"test.tsv:2: document 'd9'"):
        evaluate(encoder, f"retrieval:{tmp_path / 'tiny'}")


def test_approximate_search_has_its_own_score_and_recall(
    tmp_path: Path, encoder: BagOfWords
) -> None:
    pytest.importorskip("faiss")
    tasks = load_all_tasks(f"retrieval:{beir(tmp_path / 'tiny')}")
    exact = evaluate(encoder, tasks).beyond_sts["tiny"]
    found = evaluate(encoder, with_engine(tasks, "faiss")).beyond_sts["tiny"]
    assert found.metrics == exact.metrics
    assert found.protocol.startswith("faiss (recall@10 1.000) by cosine")
    assert exact.protocol.startswith("exact search by cosine")
    with pytest.raises(ConfigError, match="exact and faiss"):
        with_engine(tasks, "milvus")
    with pytest.raises(ConfigError, match="there is none"):
        with_engine({}, "faiss")


def test_clustering(tmp_path: Path, encoder: BagOfWords) -> None:
    rng = np.random.default_rng(4)
    rows = [(sentence(rng, i % 2), f"topic {i % 2}") for i in range(40)]
    path = tmp_path / "topics.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    x = vectors(encoder, [text for text, _ in rows])
    x /= np.linalg.norm(x, axis=1)[:, None]
    found = [KMeans(2, n_init=1, random_state=seed).fit(x).labels_ for seed in range(10)]
    expected = [v_measure_score([label for _, label in rows], labels) for labels in found]
    report = evaluate(encoder, f"clustering:{path}")
    assert report.beyond_sts["topics"].metrics["v_measure"] == pytest.approx(
        100 * np.mean(expected)
    )
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert document["beyond_sts"]["topics"]["main"] == "v_measure"
    assert "topics: v_measure" in report.table()
