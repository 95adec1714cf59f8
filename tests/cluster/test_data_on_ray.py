"""Removal of duplicates, leak checks and mining on two workers: the results of the local engine."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.cluster.dedupe import Bounds, dedupe_on_ray
from simcse_kit.cluster.leaks import check_leaks_on_ray
from simcse_kit.cluster.pool import ray_run
from simcse_kit.cluster.shard_search import ShardSearch
from simcse_kit.cluster.tasks import failures, in_order, task
from simcse_kit.cluster.vectors import ClusterEncoder
from simcse_kit.data.prepare.dedupe import DuplicateRules, remove_duplicates
from simcse_kit.data.prepare.mine import Anchors, mine
from simcse_kit.data.prepare.negative_selection import Mining
from simcse_kit.data.prepare.output import Summary
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, SimcseError
from simcse_kit.evaluation.contamination.check import LeakFiles, search_files
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.metrics.search import top_k
from simcse_kit.utils.prompt_choice import has_role_prompts
from tests.cli.conftest import Simcse, simcse

__all__ = ["simcse"]

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # Ray opens files and sockets that it does not close.
]

SMALL = Bounds(block_rows=170, digests=200, places=3000, texts=3000)
"""Bounds by which a few hundred rows are several blocks and partitions."""
SKIP = ReadOptions(on_bad_row="skip")
PAIRS = ReadOptions(columns=["sent0", "sent1"], on_bad_row="skip")


def lines(count: int, seed: int = 0) -> list[str]:
    """Lines with equal, normally equal and near lines, and many that are near each other."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzéßЖ日本"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(300)]
    made: list[str] = []
    for _ in range(count):
        kind = rng.choices(["new", "same", "case", "near", "template", "blank"], k=1)[0]
        if kind == "blank":
            made.append("")
        elif kind == "template":
            made.append(
                f"the weather in {rng.choice(words)} today is very nice, {rng.choice(words)}"
            )
        elif kind == "new" or not any(made):
            made.append(" ".join(rng.choices(words, k=rng.randint(1, 14))))
        else:
            line = rng.choice([each for each in made[-200:] if each] or ["one"])
            if kind == "near":
                changed = line.split()
                changed[rng.randrange(len(changed))] = rng.choice(words)
                line = " ".join(changed)
            made.append(line.upper() + " !" if kind == "case" else line)
    return made


def write(folder: Path, kind: str) -> Path:
    texts = lines(600)
    path = folder / f"in.{kind}"
    if kind == "txt":
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    elif kind == "txt.gz":
        path.write_bytes(gzip.compress(("\n".join(texts) + "\n").encode()))
    else:
        rows = [
            {"sent0": text, "sent1": " ".join(reversed(text.split())), "number": at}
            for at, text in enumerate(texts)
            if text
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def counts(summary: Summary) -> str:
    """The summary but for the name of the output, with the order of its reasons."""
    return json.dumps(replace(summary, output="").to_json())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("kind", "rules", "bounds"),
    [
        ("txt", DuplicateRules("exact"), SMALL),
        ("txt", DuplicateRules("normal"), Bounds()),
        ("txt.gz", DuplicateRules("near", 0.7), Bounds()),
        ("txt", DuplicateRules("near", 1.0), SMALL),
        ("jsonl", DuplicateRules("normal", by="anchor"), SMALL),
        ("jsonl", DuplicateRules("near", 0.8), replace(SMALL, places=1000)),
        ("jsonl", DuplicateRules("near", 0.9, by="anchor"), SMALL),
    ],
)
def test_the_rows_that_stay_are_those_of_the_local_engine(
    kind: str, rules: DuplicateRules, bounds: Bounds, tmp_path: Path
) -> None:
    source, here, there = write(tmp_path, kind), tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    options = PAIRS if kind == "jsonl" else SKIP
    local = remove_duplicates(source, here, options, rules)
    found = dedupe_on_ray(source, there, options, rules, bounds=bounds)
    assert there.read_bytes() == here.read_bytes()
    assert counts(found) == counts(local)
    assert sum(found.left_out.values()) > 50


@pytest.mark.usefixtures("cluster")
def test_one_cpu_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    source, here, there = write(tmp_path, "txt"), tmp_path / "a.txt", tmp_path / "b.txt"
    remove_duplicates(source, here, SKIP, DuplicateRules("near", 0.8))
    dedupe_on_ray(source, there, SKIP, DuplicateRules("near", 0.8))
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_changes_nothing(tmp_path: Path) -> None:
    source, here, there = write(tmp_path, "txt"), tmp_path / "a.txt", tmp_path / "b.txt"
    rules = DuplicateRules("near", 0.8)
    remove_duplicates(source, here, SKIP, rules)
    flag = tmp_path / "died"

    def die_once() -> int:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    dying = task(die_once).remote()
    dedupe_on_ray(source, there, SKIP, rules)
    assert ray.get(dying) > 0
    assert flag.exists()
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.usefixtures("cluster")
def test_the_memory_of_a_worker_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Four times as many rows are four times as many blocks and partitions of the same size."""
    rules = DuplicateRules("near", 0.8)
    bounds = Bounds(block_rows=1000, digests=1000, places=30_000)
    peaks = []
    for count in (2000, 8000):
        rng = random.Random(count)
        words = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(5000)]
        source = tmp_path / "in.txt"
        texts = [" ".join(rng.choices(words, k=9)) for _ in range(count)]
        source.write_text("\n".join(texts) + "\n", encoding="utf-8")
        dedupe_on_ray(source, tmp_path / "o.txt", SKIP, rules, bounds=bounds, overwrite=True)
        peaks.append(max(ray.get([task(peak_memory).remote() for _ in range(8)])))
    assert peaks[1] - peaks[0] < 20, peaks


def peak_memory() -> float:
    """Highest resident memory of a worker in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.usefixtures("cluster")
def test_leaks_and_the_files_of_a_search_are_those_of_the_local_engine(tmp_path: Path) -> None:
    texts = [each for each in lines(400) if each]
    one, two = texts[:40], texts[40:80]
    sets = {
        "made": [PairSet("made", one, two, np.zeros(40))],
        "other": [PairSet("other", two, one, np.ones(40))],
    }
    files = [write(tmp_path, "txt"), tmp_path / "more.txt"]
    files[1].write_text("\n".join(lines(300, seed=1)) + "\n", encoding="utf-8")
    reports = []
    for name in ("local", "ray"):
        written = LeakFiles(matches=tmp_path / f"{name}.tsv")
        search = search_files if name == "local" else check_leaks_on_ray
        reports.append(search(files, sets, SKIP, written, threshold=0.6))
    assert reports[0] == reports[1]
    assert reports[0].matched_rows > 50
    assert (tmp_path / "local.tsv").read_bytes() == (tmp_path / "ray.tsv").read_bytes()
    cleaned = []
    for name, search in (("local", search_files), ("ray", check_leaks_on_ray)):
        clean = tmp_path / f"{name}-clean.txt"
        search(files[:1], sets, SKIP, LeakFiles(clean=clean))
        cleaned.append(clean.read_bytes())
    assert cleaned[0] == cleaned[1]
    pairs, reports = [write(tmp_path, "jsonl")], []
    for search in (search_files, check_leaks_on_ray):
        # Of most rows the first text alone is found; the second has its words backwards.
        matches = LeakFiles(matches=tmp_path / f"{search.__name__}.tsv")
        reports.append(search(pairs, sets, PAIRS, matches, threshold=0.9))
    assert reports[0] == reports[1]
    assert reports[0].matched_rows > 50
    names = ("search_files.tsv", "check_leaks_on_ray.tsv")
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


@pytest.mark.usefixtures("cluster")
def test_a_search_in_shards_is_the_local_search_with_ties_in_order() -> None:
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((40_000, 16), dtype=np.float32)
    keys[20_000:20_500] = keys[:500]
    queries = np.concatenate([keys[:300], rng.standard_normal((900, 16), dtype=np.float32)])
    search = ShardSearch(tiles=1)
    for k in (1, 20):
        scores, rows = search(queries, keys, k)
        expected, places = top_k(queries, keys, k)
        np.testing.assert_array_equal(rows, places)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    with pytest.raises(ConfigError, match="allowed: 1 to 40000"):
        search(queries, keys, 40_001)
    # Other keys take the place of the former ones; their last shard has 5, less than 20.
    fewer = keys[1 : 16_384 + 6]
    _, rows = search(queries[:300], fewer, 20)
    np.testing.assert_array_equal(rows, top_k(queries[:300], fewer, 20)[1])


class Hashed:
    """Unit vectors that depend on the text alone."""

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        del normalize, progress
        rows = [
            np.random.default_rng(list(text.lower().encode())).standard_normal(8)
            for text in sentences
        ]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.usefixtures("cluster")
def test_mined_rows_are_those_of_the_local_search(tmp_path: Path) -> None:
    texts = [each for each in dict.fromkeys(lines(300)) if each]
    pairs = Anchors(texts[:60], texts[60:120])
    single = Anchors(texts, None)
    for name, rows in (("pairs", pairs), ("single", single)):
        mining = Mining(negatives=2, ranks=(1, 20), factor=1.0, positive_score=0.5)
        written = []
        for nearest in (top_k, ShardSearch()):
            output = tmp_path / f"{name}-{len(written)}.csv"
            mine(Hashed(), rows, output, replace(mining, nearest=nearest), candidates=texts[120:])
            written.append(output.read_bytes())
        assert written[0] == written[1]


@pytest.mark.usefixtures("cluster")
def test_workers_encode_as_this_process_does(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder_dir, tmp_path / "model")
    encoder = SentenceEncoder.load(folder, device="cpu")
    encoder.prompts = {"query": "cat ", "document": "dog "}
    texts = [each for each in lines(100) if each] * 2
    with ray_run("ray", str(folder), {}) as run:
        cluster = ClusterEncoder(encoder, run, piece=30)
        for found, expected in (
            (cluster.encode(texts, normalize=True), encoder.encode(texts, normalize=True)),
            (cluster.encode(texts[:5]), encoder.encode(texts[:5])),
            (cluster.encode(texts, prompt="the "), encoder.encode(texts, prompt="the ")),
            (cluster.encode_query(texts), encoder.encode_query(texts)),
            (cluster.encode_document(texts), encoder.encode_document(texts)),
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert has_role_prompts(cluster)
        (folder / "more.json").write_text("{}")
        encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
        with pytest.raises(ConfigError, match="has other files than on the machine of this"):
            ClusterEncoder(encoder, run, piece=30).encode(texts)


@pytest.mark.usefixtures("cluster")
def test_the_commands_take_the_engine(simcse: Simcse, tmp_path: Path) -> None:
    source = write(tmp_path, "jsonl")
    for command in (
        ["dedupe", source, "--level", "near", "--columns", "sent0,sent1"],
        ["mine", source, "--model", "mini", "--columns", "sent0,sent1"],
    ):
        outputs = []
        for engine in ("local", "ray"):
            output = tmp_path / f"{command[0]}-{engine}.jsonl"
            done = simcse("data", *command, "--engine", engine, "--output", output)
            assert done.code == 0, done.err
            assert "ray" not in done.err
            outputs.append(output.read_bytes())
        assert outputs[0] == outputs[1]
    wrong = simcse("data", "dedupe", source, "--output", tmp_path / "x.jsonl", "--engine", "spark")
    assert wrong.code == 2
    assert "allowed: local, ray" in wrong.err
    approximate = ["--search", "faiss", "--output", tmp_path / "y.csv"]
    wrong = simcse("data", "mine", source, "--engine", "ray", *approximate)
    assert wrong.code == 2
    assert "give --search exact, or --engine local" in wrong.err


@pytest.mark.usefixtures("cluster")
def test_failures_of_the_cluster_are_errors_of_one_line() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(SimcseError, match="ran out of memory") as caught, failures("dedupe"):
        raise ray.exceptions.OutOfMemoryError("killed")
    assert "\n" not in str(caught.value)
    with (
        pytest.raises(SimcseError, match=r"the cluster failed .*WorkerCrashed"),
        failures("dedupe"),
    ):
        raise ray.exceptions.WorkerCrashedError
    with pytest.raises(DataError, match=r"in\.txt: is bad"), failures("dedupe"):
        ray.get(task(fail).remote(DataError("is bad", file="in.txt")))
    with pytest.raises(ZeroDivisionError), failures("dedupe"):
        ray.get(task(fail).remote(ZeroDivisionError()))


@pytest.mark.usefixtures("cluster")
def test_rows_are_read_only_as_fast_as_the_tasks_end() -> None:
    read: list[int] = []

    def same(number: int) -> int:
        return number

    def started() -> Iterator[tuple[int, Any]]:
        for number in range(12):
            read.append(number)
            yield number, task(same).remote(number)

    ended = []
    for number, reference in in_order(started(), ahead=3):
        ended.append(ray.get(reference))
        assert len(read) <= number + 3
    assert ended == list(range(12))


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    source = write(tmp_path, "txt")
    with pytest.raises(MissingExtraError, match=r"simcse-kit\[ray\]"):
        dedupe_on_ray(source, tmp_path / "out.txt", SKIP)
    assert list(tmp_path.iterdir()) == [source]
