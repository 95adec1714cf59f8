"""Corpora: kinds, cache, memory map, reports."""

from __future__ import annotations

import dataclasses
import os
import pickle
import stat
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from simcse_kit.data import arrow as arrow_module
from simcse_kit.data import corpus as corpus_module
from simcse_kit.data.arrow import count_rows
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.corpus_cache import CorpusManifest
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Example
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import checksum_of


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_texts(tmp_path, cache):
    path = put(tmp_path / "a.txt", "".join(f"sentence {i}\n" for i in range(25_000)))
    corpus = Corpus.build([path], cache_dir=cache)
    assert (corpus.kind, len(corpus), corpus.negatives) == ("texts", 25_000, 0)
    assert corpus.rows([24_999, 0, 10_000, 9_999, -1]) == [
        Example((f"sentence {i}",)) for i in (24_999, 0, 10_000, 9_999, 24_999)
    ]
    assert corpus[3] == Example(("sentence 3",))
    assert [row.texts[0] for row in corpus] == [f"sentence {i}" for i in range(25_000)]
    assert corpus[1:3] == [Example(("sentence 1",)), Example(("sentence 2",))]
    with pytest.raises(IndexError):
        corpus[25_000]
    assert corpus.path.parent == cache / "corpora"
    assert corpus.path.stem == corpus.fingerprint


def test_dataset_is_memory_mapped_with_the_promised_columns(tmp_path, cache):
    import datasets

    path = put(tmp_path / "a.csv", "sent0,sent1,hard_neg,hard_neg1\na,b,c,d\ne,f,,g\n")
    corpus = Corpus.build(path, cache_dir=cache)
    assert (corpus.kind, corpus.negatives) == ("triplets", 2)
    assert isinstance(corpus.dataset, datasets.Dataset)
    assert corpus.dataset.cache_files == [{"filename": str(corpus.path)}]
    assert corpus.dataset.data.schema.remove_metadata() == pa.schema(
        {"sent0": pa.string(), "sent1": pa.string(), "negatives": pa.list_(pa.string())}
    )
    assert corpus.dataset[1] == {"sent0": "e", "sent1": "f", "negatives": ["g"]}
    assert [row.texts for row in corpus] == [("a", "b", "c", "d"), ("e", "f", "g")]


def test_pairs_from_a_folder_of_several_formats(tmp_path, cache):
    folder = tmp_path / "data"
    folder.mkdir()
    put(folder / "2.jsonl", '{"anchor": "e", "positive": "f"}\n')
    put(folder / "1.tsv", "sent0\tsent1\na\tb\n")
    put(folder / "3.csv", "sentence1,sentence2\nc,d\n")
    corpus = Corpus.build([folder], cache_dir=cache)
    assert corpus.kind == "pairs"
    assert [row.texts for row in corpus] == [("a", "b"), ("e", "f"), ("c", "d")]


def test_files_of_different_kinds(tmp_path, cache):
    texts = put(tmp_path / "a.txt", "a\n")
    pairs = put(tmp_path / "b.tsv", "sent0\tsent1\na\tb\n")
    with pytest.raises(DataError) as caught:
        Corpus.build([texts, pairs], cache_dir=cache)
    assert str(caught.value).startswith(f"{pairs}: holds pairs but {texts} holds texts")
    assert not cache.exists()


def test_cache_hit_gives_an_equal_corpus_and_report(tmp_path, cache, monkeypatch, caplog):
    path = put(tmp_path / "a.txt", "a\n\nb\n\nc\n")
    first = Corpus.build([path], ReadOptions(on_bad_row="skip"), cache_dir=cache)
    assert first.report.skipped == {"blank line": 2}
    assert f"first: {path}:2" in caplog.text
    os.utime(path, (1, 1))
    other = path.rename(tmp_path / "renamed.txt")
    monkeypatch.setattr(corpus_module, "_write", None)
    second = Corpus.build([other], ReadOptions(on_bad_row="skip"), cache_dir=cache)
    assert second.fingerprint == first.fingerprint
    assert list(second) == list(first)
    assert second.report.skipped == first.report.skipped
    assert second.report.rows == first.report.rows == 3
    assert second.report.first_skipped == {"blank line": f"{other}:2"}


def test_fingerprint_follows_content_and_settings(tmp_path, cache):
    def key(*paths, **options):
        return Corpus.build(paths, ReadOptions(**options), cache_dir=cache).fingerprint

    a, b = put(tmp_path / "a.txt", "a\n"), put(tmp_path / "b.txt", "b\n")
    table = put(tmp_path / "c.csv", "x,y\n1,2\n")
    keys = [
        key(a),
        key(b),
        key(a, b),
        key(b, a),
        key(a, on_bad_row="skip"),
        key(a, max_line_bytes=9),
        key(put(tmp_path / "a.tsv", "text\na\n")),
        key(table, columns=("x",)),
        key(table, columns=("0",)),
        key(table, columns=("x", "y")),
        key(a, format="tsv", columns=("0",)),
        key(table, columns=("x",), format="csv"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(put(tmp_path / "again.txt", "a\n")) == keys[0]
    assert all(set(k) <= set("0123456789abcdef") for k in keys)


@pytest.mark.parametrize(
    "damage", ["no json", "bad json", "cut", "garbage", "wrong rows", "wrong negatives"]
)
def test_torn_cache_is_built_again(tmp_path, cache, damage):
    path = put(tmp_path / "a.txt", "a\nb\n")
    corpus = Corpus.build([path], cache_dir=cache)
    arrow, record = corpus.path, corpus.path.with_suffix(".json")
    good = record.read_text(encoding="utf-8")
    size = arrow.stat().st_size
    if damage == "no json":
        record.unlink()
    elif damage == "bad json":
        record.write_text("{", encoding="utf-8")
    elif damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[:-40])
    elif damage == "garbage":
        arrow.write_bytes(b"x" * size)
    elif damage == "wrong rows":
        record.write_text(good.replace('"rows": 2', '"rows": 3'), encoding="utf-8")
    else:
        record.write_text(good.replace('"negatives": 0', '"negatives": 7'), encoding="utf-8")
    again = Corpus.build([path], cache_dir=cache)
    assert [row.texts for row in again] == [("a",), ("b",)]
    assert record.read_text(encoding="utf-8") == good


def test_nothing_left_after_skipping(tmp_path, cache):
    path = put(tmp_path / "a.csv", "sent0,sent1\na,\n")
    with pytest.raises(DataError, match=r"no row is left of .*blank positive \(first: .*:2\)"):
        Corpus.build([path], ReadOptions(on_bad_row="skip"), cache_dir=cache)
    assert list((cache / "corpora").iterdir()) == []


def test_failed_build_leaves_nothing(tmp_path, cache):
    path = put(tmp_path / "a.txt", "a\n\nb\n")
    with pytest.raises(DataError, match=":2: blank line"):
        Corpus.build([path], cache_dir=cache)
    assert list((cache / "corpora").iterdir()) == []


def test_file_that_changes_while_it_is_read(tmp_path, cache, monkeypatch):
    path = put(tmp_path / "a.txt", "a\n")
    states = iter([(2, 0), (2, 1)])
    monkeypatch.setattr(corpus_module, "_state", lambda _: next(states))
    with pytest.raises(DataError, match="changed while it was read"):
        Corpus.build([path], cache_dir=cache)


def test_builders_side_by_side(tmp_path, cache):
    path = put(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(3000)))
    found, errors = [], []

    def build():
        try:
            found.append(Corpus.build([path], cache_dir=cache))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all([row.texts[0] for row in c[2998:]] == ["2998", "2999"] for c in found)
    assert sorted(p.suffix for p in (cache / "corpora").iterdir()) == [".arrow", ".json"]


def test_cache_that_cannot_be_written(tmp_path):
    path = put(tmp_path / "a.txt", "a\n")
    with pytest.raises(ConfigError, match="SIMCSE_CACHE"):
        Corpus.build([path], cache_dir=path)


def test_default_cache_folder(tmp_path, monkeypatch):
    path = put(tmp_path / "a.txt", "a\n")
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "env"))
    assert Corpus.build([path]).path.parent == tmp_path / "env" / "corpora"
    monkeypatch.delenv("SIMCSE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Corpus.build([path]).path.parent == tmp_path / "home/.cache/simcse_kit/corpora"


def test_pickle_keeps_the_rows_on_disk(tmp_path, cache):
    path = put(tmp_path / "a.txt", "".join(f"{i} {'x' * 50}\n" for i in range(2000)))
    corpus = Corpus.build([path], cache_dir=cache)
    assert len(corpus.rows([5])) == 1
    data = pickle.dumps(corpus)
    assert len(data) < 2000
    assert list(pickle.loads(data)) == list(corpus)


def test_long_texts_make_small_batches(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(arrow_module, "_BATCH_CHARACTERS", 1000)
    path = put(tmp_path / "a.txt", "".join(f"{i:0300}\n" for i in range(10)))
    corpus = Corpus.build([path], cache_dir=cache)
    chunks = corpus.dataset.data.column("sent0").chunks
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert [int(row.texts[0]) for row in corpus] == list(range(10))


def test_quiet_when_not_a_terminal(tmp_path, cache, capfd):
    corpus = Corpus.build([put(tmp_path / "a.txt", "a\n")], cache_dir=cache)
    assert corpus[0].texts == ("a",)
    assert capfd.readouterr() == ("", "")


def changed_text(arrow: Path) -> None:
    content = arrow.read_bytes()
    assert b"unchanged" in content
    arrow.write_bytes(content.replace(b"unchanged", b"poisonous"))


def changed_offset(arrow: Path) -> None:
    content = bytearray(arrow.read_bytes())
    at = content.index(b"\x00\x00\x00\x00\x09\x00\x00\x00\x12\x00\x00\x00")
    content[at + 4 : at + 8] = b"\xff\xff\xff\x7f"
    arrow.write_bytes(content)


@pytest.mark.parametrize("change", [changed_text, changed_offset])
def test_changed_bytes_are_no_training_text(tmp_path, cache, change, caplog):
    path = put(tmp_path / "a.txt", "unchanged\nunchanged\n")
    corpus = Corpus.build([path], cache_dir=cache)
    state = corpus.path.stat()
    change(corpus.path)
    os.utime(corpus.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert corpus.path.stat().st_size == state.st_size
    again = Corpus.build([path], cache_dir=cache)
    assert [row.texts for row in again] == [("unchanged",), ("unchanged",)]
    assert "is not the corpus that was written there; building it again" in caplog.text


def test_offsets_are_checked_even_if_the_checksum_is_right(tmp_path, cache):
    path = put(tmp_path / "a.txt", "unchanged\nunchanged\n")
    corpus = Corpus.build([path], cache_dir=cache)
    changed_offset(corpus.path)
    record = corpus.path.with_suffix(".json")
    known = CorpusManifest.from_json(record.read_text(encoding="utf-8"))
    forged = dataclasses.replace(known, checksum=checksum_of(corpus.path))
    record.write_text(forged.to_json(), encoding="utf-8")
    assert count_rows(corpus.path, "texts") is None
    again = Corpus.build([path], cache_dir=cache)
    assert [row.texts for row in again] == [("unchanged",), ("unchanged",)]


@pytest.mark.parametrize("suffix", [".arrow", ".json"])
@pytest.mark.parametrize("planted", ["link", "fifo", "another owner"])
@pytest.mark.skipif(os.name == "nt", reason="other permissions")
def test_planted_files_are_not_opened(tmp_path, cache, suffix, planted, monkeypatch):
    path = put(tmp_path / "a.txt", "a\nb\n")
    target = Corpus.build([path], cache_dir=cache).path.with_suffix(suffix)
    if planted == "link":
        target.rename(tmp_path / "elsewhere")
        target.symlink_to(tmp_path / "elsewhere")
    elif planted == "fifo":
        target.unlink()
        os.mkfifo(target)
    else:
        owner = (os.getuid() or 1000) + 1
        real = Path.lstat
        monkeypatch.setattr(Path, "lstat", lambda self: owned(real(self), self == target, owner))
    again = Corpus.build([path], cache_dir=cache)
    assert [row.texts for row in again] == [("a",), ("b",)]
    assert stat.S_ISREG(os.lstat(target).st_mode)


def owned(status: os.stat_result, changed: bool, owner: int) -> os.stat_result:
    values = list(status)
    if changed:
        values[stat.ST_UID] = owner
    return os.stat_result(values)


@pytest.mark.skipif(os.name == "nt", reason="other permissions")
def test_the_cache_folder_is_private(tmp_path, cache):
    path = put(tmp_path / "a.txt", "a\n")
    umask = os.umask(0)
    try:
        folder = Corpus.build([path], cache_dir=cache).path.parent
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name == "nt", reason="other permissions")
def test_folders_that_others_can_write_to_are_refused(tmp_path, cache, monkeypatch):
    path = put(tmp_path / "a.txt", "a\n")
    folder = Corpus.build([path], cache_dir=cache).path.parent

    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"every user can write .*; run chmod 700 on it, or set"):
        Corpus.build([path], cache_dir=cache)
    # The remedies work.
    assert len(Corpus.build([path], cache_dir=tmp_path / "own")) == 1
    folder.chmod(0o700)
    assert len(Corpus.build([path], cache_dir=cache)) == 1

    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "corpora").symlink_to(folder)
    with pytest.raises(ConfigError, match="is a symbolic link; set SIMCSE_CACHE to a folder of"):
        Corpus.build([path], cache_dir=linked)

    real, owner = Path.lstat, (os.getuid() or 1000) + 1
    monkeypatch.setattr(Path, "lstat", lambda self: owned(real(self), self == folder, owner))
    with pytest.raises(ConfigError, match=f"belongs to another user .number {owner}.*set SIMCSE"):
        Corpus.build([path], cache_dir=cache)
