"""Training rows in shards on an object store, with a bounded part on the disk."""

from __future__ import annotations

import gc
import json
import threading
import time
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.data.fetch_ahead import FetchAhead
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.remote import RemoteFile, remote_files
from simcse_kit.data.streamed import WINDOW, StreamedCorpus
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.training.batching.shard_order import ShardOrder

SHARDS, ROWS = 8, 40


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket(store: Any) -> str:  # noqa: ARG001 (empties the store)
    for shard in range(SHARDS):
        put(f"/bucket/{shard}.parquet", [f"row {shard} {row} of the text" for row in range(ROWS)])
    return "memory://bucket"


def put(path: str, texts: list[str]) -> None:
    with fsspec.filesystem("memory").open(path, "wb") as file:
        pq.write_table(pa.table({"text": texts}), file)


def limit_of() -> int:
    with pytest.raises(ConfigError, match=r"data.stream is ") as caught:
        StreamedCorpus(["memory://bucket"], ReadOptions(), limit=100)
    return int(str(caught.value).partition("give ")[2].partition(" or")[0].replace(",", ""))


def test_rows_are_those_of_the_shards_and_the_disk_holds_a_bounded_part(bucket: str) -> None:
    StreamedCorpus([bucket], ReadOptions(), limit=10**6)  # counts the rows
    limit = limit_of()
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=limit)
    assert len(corpus) == SHARDS * ROWS
    most = 0
    for index in ShardOrder(corpus.shard_rows, window=WINDOW, seed=3).visits(0):
        (row,) = corpus.rows([index])
        assert row.texts == (f"row {index // ROWS} {index % ROWS} of the text",)
        most = max(most, corpus.local_bytes)
    assert 0 < most <= limit
    assert [row.texts[0] for row in corpus.rows([-1, 0])] == [
        f"row {SHARDS - 1} {ROWS - 1} of the text",
        "row 0 0 of the text",
    ]
    assert sum(1 for _ in corpus.texts()) == len(corpus)
    for outside in (len(corpus), -len(corpus) - 1):
        with pytest.raises(IndexError):
            corpus.rows([outside])


def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Record the names of files that are fetched from now on, and whether training waits."""
    found: list[tuple[str, bool]] = []
    fetch = RemoteFile.fetch

    def recorded(file: RemoteFile, folder: Path) -> Path:
        found.append((file.file_name, threading.current_thread() is threading.main_thread()))
        return fetch(file, folder)

    monkeypatch.setattr(RemoteFile, "fetch", recorded)
    return found


def settled(corpus: StreamedCorpus) -> None:
    """Wait for the copies in the background."""
    until = time.monotonic() + 30
    while not all(copy.done() for copy in corpus._ahead._copies.values()):
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("room", [0, 0.5, 10])
def test_with_more_room_the_next_shards_are_fetched_before_they_are_needed(
    room: float, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    StreamedCorpus([bucket], ReadOptions(), limit=10**6)  # counts the rows
    sizes = [file.size for file in remote_files(bucket)]
    limit = limit_of() + int(room * WINDOW * max(sizes))
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=limit)
    files = fetched(monkeypatch)
    order = ShardOrder(corpus.shard_rows, window=WINDOW, seed=3, expect=corpus.expect)
    most = 0
    for step, index in enumerate(chain(order.visits(0), order.visits(1))):
        (row,) = corpus.rows([index % len(corpus)])
        shard = index % len(corpus) // ROWS
        assert row.texts == (f"row {shard} {index % ROWS} of the text",)
        if step % ROWS == 0:
            settled(corpus)
        most = max(most, corpus.local_bytes)
    assert most <= limit
    ahead = sum(not waits for _, waits in files)
    if room == 10:
        # Those of the first window may be begun by either.
        assert all(not waits for _, waits in files[WINDOW:])
    assert (ahead > 0) == (room > 0)


def test_the_smallest_limit_keeps_the_last_four_shards(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    StreamedCorpus([bucket], ReadOptions(), limit=10**6)  # counts the rows
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=limit_of())
    files = fetched(monkeypatch)
    for shard in (0, 1, 2, 3, 0, 4, 0, 3):
        corpus.rows([shard * ROWS])
    assert [int(name[0]) for name, _ in files] == [0, 1, 2, 3, 4]
    assert not list(corpus.path.rglob("*.parquet"))


def test_shards_that_are_on_the_disk_are_not_fetched_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    files = fetched(monkeypatch)
    corpus.rows([3 * ROWS])
    corpus.expect([3, 4])
    settled(corpus)
    corpus.rows([4 * ROWS])
    settled(corpus)
    assert [name[0] for name, _ in files] == ["3", "4"]


def test_copies_that_are_given_up_leave_the_disk(bucket: str) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    corpus.expect([3, 4])
    settled(corpus)
    assert corpus.local_bytes > 0
    corpus.expect([])
    assert corpus.local_bytes == 0


def test_files_of_unknown_size_are_not_fetched_before_they_are_needed(
    bucket: str, tmp_path: Path
) -> None:
    (known, *_) = remote_files(bucket)
    unknown = RemoteFile(known.address, known.system, {**known.info, "size": None})
    for file, copies in ((known, 1), (unknown, 0)):
        ahead = FetchAhead([file], tmp_path, 10**6)
        ahead.expect([0])
        assert len(ahead._copies) == copies
        assert ahead.take(0, tmp_path).read_bytes()


def test_the_folder_of_a_corpus_vanishes_with_it(bucket: str) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    folder = corpus.path
    assert folder.exists()
    del corpus
    gc.collect()
    assert not folder.exists()


def test_rows_are_counted_again_for_other_files_and_other_options(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    skip = ReadOptions(on_bad_row="skip")
    first = StreamedCorpus([bucket], skip, limit=10**6)
    put("/bucket/3.parquet", ["one row", " "])
    put("/bucket/5.parquet", ["one row", " ", " "])
    second = StreamedCorpus([bucket], skip, limit=10**6)
    assert len(second) == (SHARDS - 2) * ROWS + 2
    assert second.fingerprint != first.fingerprint
    assert second.rows([3 * ROWS])[0].texts == ("one row",)
    said = "242 rows are used; skipped 3 x blank anchor (first: memory://bucket/3.parquet:2)"
    assert caplog.messages == [said]
    with pytest.raises(DataError, match=r"^memory://bucket/3\.parquet:2: ") as caught:
        StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    assert "cache" not in str(caught.value)


def test_rows_with_most_negatives_may_be_in_any_shard(tmp_path: Path) -> None:
    for number, negatives in enumerate(([], ["a car", "a bus"], ["a car"])):
        row = {"anchor": "a cat", "positive": "a dog", "negatives": negatives or ["a tree"]}
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
    corpus = StreamedCorpus([str(tmp_path)], ReadOptions(), limit=10**6)
    assert corpus.negatives == 2


def test_a_copy_that_fails_in_the_background_is_an_error_when_it_is_needed(bucket: str) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    fsspec.filesystem("memory").rm("/bucket/3.parquet")
    corpus.expect([3, 4, 5])
    settled(corpus)
    corpus.expect([4])
    assert set(corpus._ahead._copies) == {4}
    corpus.expect([4, 3])
    settled(corpus)
    assert corpus.rows([4 * ROWS])[0].texts == ("row 4 0 of the text",)
    with pytest.raises(DataError, match=r"^memory://bucket/3.parquet: no such file"):
        corpus.rows([3 * ROWS])
    corpus.expect([3])
    settled(corpus)
    put("/bucket/3.parquet", [f"row 3 {row} of the text" for row in range(ROWS)])
    assert corpus.rows([3 * ROWS])[0].texts == ("row 3 0 of the text",)


def test_a_shard_that_vanishes_or_changes_is_named(bucket: str) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    fsspec.filesystem("memory").rm("/bucket/3.parquet")
    with pytest.raises(DataError, match=r"^memory://bucket/3.parquet: no such file"):
        corpus.rows([3 * ROWS])
    put("/bucket/3.parquet", ["other text"] * ROWS)
    with pytest.raises(DataError, match=r"^memory://bucket/3.parquet: has changed since"):
        corpus.rows([3 * ROWS])
    assert corpus.rows([0])[0].texts == ("row 0 0 of the text",)


def test_shards_of_different_kinds_are_refused(bucket: str) -> None:
    with fsspec.filesystem("memory").open("/bucket/9.csv", "w") as file:
        file.write("sent0,sent1\na cat,a dog\n")
    with pytest.raises(DataError, match=r"9.csv: holds pairs but memory://bucket/0.parquet holds"):
        StreamedCorpus([bucket], ReadOptions(), limit=10**6)


def test_a_limit_below_one_shard_is_refused(bucket: str) -> None:
    with pytest.raises(ConfigError, match=r"0.parquet alone takes .* write smaller shards"):
        StreamedCorpus([bucket], ReadOptions(), limit=10)


def test_an_empty_folder_is_refused() -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        StreamedCorpus(["memory://nothing"], ReadOptions(), limit=10)


def test_folders_of_killed_processes_are_removed(bucket: str) -> None:
    corpus = StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    folder = corpus.path
    host = folder.name.partition(".")[0]
    dead = folder.with_name(f"{host}.999999999.x")
    dead.mkdir()
    StreamedCorpus([bucket], ReadOptions(), limit=10**6)
    assert folder.exists()
    assert not dead.exists()


@pytest.mark.parametrize("sizes", [[5], [1, 1, 1], [3, 7, 2, 9, 4, 1, 6]])
def test_an_epoch_has_every_row_once_from_few_shards_at_a_time(sizes: list[int]) -> None:
    order = ShardOrder(sizes, window=2, seed=7)
    first, second = list(order.visits(0)), list(order.visits(1))
    assert sorted(first) == list(range(sum(sizes)))
    assert sorted(second) == list(range(sum(sizes), 2 * sum(sizes)))
    assert list(order.visits(0)) == first
    owners = [shard for shard, size in enumerate(sizes) for _ in range(size)]
    seen: list[int] = []
    for row in first:
        if owners[row] not in seen:
            seen.append(owners[row])
    for at in range(0, len(seen), 2):
        places = [n for n, row in enumerate(first) if owners[row] in seen[at : at + 2]]
        assert places[-1] - places[0] == len(places) - 1


def test_each_epoch_and_each_seed_has_another_order_of_shards_and_of_rows() -> None:
    for sizes in ([1] * 12, [12]):
        first, second = (
            [row % 12 for row in ShardOrder(sizes, window=1, seed=7).visits(epoch)]
            for epoch in (0, 1)
        )
        other = list(ShardOrder(sizes, window=1, seed=8).visits(0))
        assert first != second
        assert first != other


def test_a_window_expects_its_shards_and_those_of_the_next_one() -> None:
    windows: list[list[int]] = []
    order = ShardOrder([3] * 5, window=2, seed=7, expect=lambda shards: windows.append([*shards]))
    read = [row % 15 // 3 for epoch in (0, 1) for row in order.visits(epoch)]
    own = [set(read[at:end]) for at, end in ((0, 6), (6, 12), (12, 15), (15, 21), (21, 27))]
    for at, (shards, following) in enumerate(pairwise(own)):
        assert set(windows[at][: len(shards)]) == shards
        assert set(windows[at][len(shards) :]) >= following
        assert len(windows[at]) <= 2 * 2
