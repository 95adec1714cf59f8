"""Training data on object stores and in data sets of the Hub, without a network."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.config import RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.find import find_files
from simcse_kit.data.in_memory import write_rows
from simcse_kit.data.remote import is_remote, local_file
from simcse_kit.errors import ConfigError, DataError, SimcseError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.evaluation.tasks.load import load_all_tasks

PAIRS = "anchor,positive\na cat,the cat\na dog,the dog\n"
GRADED = "5\ta\tb\n2\tc\td\n0\te\tf\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


def put_parquet(store: Any, path: str, rows: list[dict[str, Any]]) -> None:
    with store.open(path, "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows), file)


# ------------------------------------------------------------------ object stores


def test_files_of_every_kind_are_read_from_a_store(store: Any) -> None:
    store.pipe("/bucket/pairs.csv", PAIRS.encode())
    store.pipe("/bucket/more.jsonl", b'{"anchor": "a bird", "positive": "the bird"}\n')
    put_parquet(store, "/bucket/last.parquet", [{"anchor": "a cow", "positive": "the cow"}])
    store.pipe("/bucket/text.txt", b"one\ntwo\n")
    names = [f"memory://bucket/{name}" for name in ("pairs.csv", "more.jsonl", "last.parquet")]
    corpus = Corpus.build(names, count_files=True)
    assert [row.texts[0] for row in corpus] == ["a cat", "a dog", "a bird", "a cow"]
    assert corpus.report.file_rows == [2, 1, 1]
    assert list(Corpus.build("memory://bucket/text.txt").texts()) == [("one",), ("two",)]


def test_a_folder_of_a_store_means_its_files_by_name(store: Any) -> None:
    for name in ("b.txt", "a.txt", ".hidden.txt", "notes.md", "deeper/c.txt"):
        store.pipe(f"/bucket/{name}", b"text\n")
    assert [file.name for file in find_files("memory://bucket")] == ["a.txt", "b.txt"]
    with pytest.raises(DataError, match="is a folder of 2 files; give one of them"):
        local_file("memory://bucket")


def test_a_file_is_copied_again_only_if_it_has_changed(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    address = "memory://bucket/a.txt"
    store.pipe("/bucket/a.txt", b"one\n")
    with caplog.at_level(logging.INFO):
        (first,) = find_files(address)
    assert f"copied to {first}" in caplog.text
    before = first.stat().st_mtime_ns
    assert find_files(address) == [first]
    assert first.stat().st_mtime_ns == before
    time.sleep(0.01)
    store.pipe("/bucket/a.txt", b"two\n")
    (second,) = find_files(address)
    assert (first.read_text(), second.read_text()) == ("one\n", "two\n")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://bucket/none.csv", r"memory://bucket/none\.csv: no such file or folder"),
        ("memory://bucket/notes.md", r"suffix '\.md' is not supported"),
        ("memory://empty", "the folder has no file with one of these suffixes"),
        ("s3://bucket/a.csv", "needs the package s3fs, .* pip install s3fs"),
        ("gs://bucket/a.csv", "needs the package gcsfs, .* pip install gcsfs"),
        ("nowhere://bucket/a.csv", "cannot be opened .*give a path, or an address such as s3://"),
    ],
)
def test_a_bad_address_is_one_line(store: Any, address: str, message: str) -> None:
    store.pipe("/bucket/notes.md", b"text")
    store.makedirs("/empty", exist_ok=True)
    with pytest.raises(SimcseError, match=message) as caught:
        find_files(address)
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_store_are_one_line(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe("/bucket/a.csv", PAIRS.encode())

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Forbidden\nrequest 17")

    monkeypatch.setattr(type(store), "get_file", refuse)
    with pytest.raises(DataError, match=r"\(PermissionError: Forbidden\); check the address"):
        find_files("memory://bucket/a.csv")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_paths_and_sentences_are_no_addresses() -> None:
    assert not any(map(is_remote, ["a.csv", "C:\\a.csv", "see http://x.org", Path("hf:x"), "/a:b"]))
    assert all(map(is_remote, ["s3://b/a.csv", "hf:owner/name", "hf://datasets/o/n/a.csv"]))
    with pytest.raises(DataError, match=r"is the name of a file; .*settings=\{'data.train'"):
        write_rows(["s3://bucket/a.csv", "s3://bucket/b.csv"])
    assert write_rows(["http://x.org is a page", "text"]).path.is_file()


def test_graded_pairs_are_read_from_a_store(store: Any) -> None:
    store.pipe("/bucket/graded.tsv", GRADED.encode())
    address = "memory://bucket/graded.tsv"
    assert DevSet.load(address).name == "graded"
    (pairs,) = load_all_tasks(address)["graded"]  # type: ignore[misc]
    assert pairs.sentences1 == ["a", "c", "e"]


# ------------------------------------------------------------------ data sets of the Hub


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ``datasets`` opens as it does a repository of the Hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    place = tmp_path / "reviews"
    place.mkdir()
    for split, start in (("train", 0), ("test", 100)):
        rows = [
            {"body": f"review {n}", "title": f"title {n}", "other": f"other {n}", "rating": n % 5}
            for n in range(start, start + 6)
        ]
        pq.write_table(pa.Table.from_pylist(rows), place / f"{split}.parquet")
    return place


@pytest.mark.parametrize(
    ("suffix", "kind", "first"),
    [
        (":train#body", "texts", ("review 0",)),
        ("#body", "texts", ("review 0",)),
        (":test#title,body", "pairs", ("title 100", "review 100")),
        (":train[2:4]#title,body,other", "triplets", ("title 2", "review 2", "other 2")),
        (":train#title,body,rating", "labelled", ("title 0", "review 0")),
    ],
)
def test_columns_of_a_data_set_become_rows(
    folder: Path, suffix: str, kind: str, first: tuple[str, ...]
) -> None:
    corpus = Corpus.build(f"hf:{folder}{suffix}")
    assert (corpus.kind, corpus[0].texts) == (kind, first)
    assert len(corpus) == (2 if "[" in suffix else 6)


def test_a_data_set_is_written_once(folder: Path) -> None:
    name = f"hf:{folder}:test#body"
    (first,) = find_files(name)
    assert first.name == "reviews-test.parquet"
    before = first.stat().st_mtime_ns
    assert find_files(name) == [first]
    assert first.stat().st_mtime_ns == before


def test_the_order_of_the_columns_decides(folder: Path) -> None:
    rows = [{"anchor": "a", "positive": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    (folder / "test.parquet").unlink()
    for columns, texts in (("anchor,positive", ("a", "b")), ("positive,anchor", ("b", "a"))):
        assert Corpus.build(f"hf:{folder}#{columns}")[0].texts == texts


def test_usual_columns_keep_their_names(folder: Path) -> None:
    rows = [{"query": "a", "pos": ["b", "c"], "neg": ["d"]}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    (folder / "test.parquet").unlink()
    corpus = Corpus.build(f"hf:{folder}:train#query,pos,neg")
    assert [row.texts for row in corpus] == [("a", "b", "d"), ("a", "c", "d")]
    assert [row.texts for row in Corpus.build(f"hf:{folder}")] == [("a", "b", "d"), ("a", "c", "d")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:{}:train#bodi", r"no column 'bodi' \(did you mean 'body'\?\).*; the columns are body"),
        ("hf:{}:dev#body", r"cannot download .* \(dev\) from the Hub \(ValueError: Unknown split"),
        ("hf:{}", "name the columns that hold text"),
        ("hf:", "is not the name of a data set; write hf:owner/name:split#column"),
        ("hf:a/b/c/d", "neither a folder nor a data set; write hf:owner/name:split#column"),
    ],
)
def test_a_bad_data_set_is_one_line(folder: Path, name: str, message: str) -> None:
    with pytest.raises(SimcseError, match=message) as caught:
        Corpus.build(name.format(folder))
    assert "\n" not in str(caught.value)


def test_without_a_network_a_data_set_is_one_line() -> None:
    with pytest.raises(DataError, match=r"cannot download owner/name \(train\).*network") as caught:
        find_files("hf:owner/name:train#text")
    assert "\n" not in str(caught.value)


def test_a_data_set_holds_the_graded_pairs_of_an_evaluation(folder: Path) -> None:
    pairs = [{"sentence1": f"a{n}", "sentence2": f"b{n}", "score": n / 4} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(pairs), folder / "test.parquet")
    (folder / "train.parquet").unlink()
    assert list(load_all_tasks([f"hf:{folder}:test"])) == ["reviews-test"]
    by_column = load_all_tasks(f"hf:{folder}:test#sentence2,sentence1,score")
    (found,) = by_column["reviews-test"]  # type: ignore[misc]
    assert found.sentences1[1] == "b1"


def test_the_configuration_names_addresses_as_they_are() -> None:
    names = ["s3://bucket/a.csv", "hf:owner/name:train#text"]
    config = RunConfig.model_validate({"data": {"train": names}})
    assert config.data.train == names


def test_the_cache_of_copies_is_private(store: Any, tmp_path: Path) -> None:
    store.pipe("/bucket/a.txt", b"one\n")
    remote = tmp_path / "cache" / "remote"
    find_files("memory://bucket/a.txt")
    remote.chmod(0o777)
    with pytest.raises(ConfigError, match="every user can write to the cache folder"):
        find_files("memory://bucket/a.txt")
