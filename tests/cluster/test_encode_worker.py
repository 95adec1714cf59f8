"""Parts of encoding on a cluster, without a cluster."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.row_ranges import RangeStart, range_starts
from simcse_kit.bulk.sentence_files import SentenceFile
from simcse_kit.bulk.shard_log import JOB, Shard, text_checksum
from simcse_kit.cluster.connection import ClusterInfo
from simcse_kit.cluster.encode import speed_of
from simcse_kit.cluster.encode_worker import EncodeWork, Outcome, RowRange, ShardWorker
from simcse_kit.cluster.pool import Pool, pool_of
from simcse_kit.cluster.worker_model import WorkerModel
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError, DataError
from tests.cli.conftest import Simcse, simcse
from tests.small_data import sentences

__all__ = ["simcse"]


@pytest.fixture
def work(tiny_encoder_dir: Path, tmp_path: Path) -> EncodeWork:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOB).write_text("{}")
    text = tmp_path / "in.txt"
    text.write_text("\n".join(sentences(20)), encoding="utf-8")
    return EncodeWork(
        model=WorkerModel(
            str(tiny_encoder_dir), {"device": "cpu"}, fingerprint(tiny_encoder_dir), threads=1
        ),
        files=[SentenceFile(str(text))],
        rows=20,
        first_rows=10,
        output=OutputSpec.of(f"{tmp_path}/out/"),
        options=EncodeOptions(),
        chunk=5,
    )


def outcome(work: EncodeWork, start: RangeStart) -> Outcome:
    """The outcome of rows 10 to 19, which begin at ``start``."""
    rows = RowRange(1, 10, 10, start, text_checksum(sentences(20)[10:]))
    (found,) = ShardWorker(work)({"item": [pickle.dumps(rows)]})["result"]
    return cast("Outcome", pickle.loads(found))


@pytest.mark.usefixtures("_threads")
def test_a_range_becomes_a_shard(work: EncodeWork) -> None:
    found = outcome(work, *range_starts(work.files, [20], [10]))
    assert found.error is None
    assert found.entry is not None
    assert (found.entry.shard, found.entry.file, found.entry.rows) == (1, "part-000001.npy", 10)
    assert found.counts.sentences == 10
    names = {path.name for path in work.output.folder.iterdir()}
    assert names == {JOB, "part-000001.npy"}


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("other text", DataError, "rows 11 to 20 differ on"),
        ("no text", DataError, "in.txt: no such file or folder"),
        ("no folder", ConfigError, "on a disk that all machines share"),
        ("other model", ConfigError, "copy the same folder to all machines"),
        ("often killed", Exception, "8 workers ended while they encoded them"),
    ],
)
def test_errors_come_back_as_outcomes_and_leave_no_shard(
    case: str, kind: type[Exception], message: str, work: EncodeWork
) -> None:
    folder, text = work.output.folder, Path(work.files[0].name)
    (start,) = range_starts(work.files, [20], [10])
    if case == "other text":
        text.write_text(text.read_text().replace("cat", "cow").replace("the", "thy"))
    elif case == "no text":
        text.unlink()
    elif case == "no folder":
        (folder / JOB).unlink()
    elif case == "other model":
        work = replace(work, model=replace(work.model, fingerprint="0"))
    else:
        (folder / f".{1:016x}.tmp").write_bytes(b"." * 8)
    error = outcome(work, start).error
    assert isinstance(error, kind)
    assert message in str(error)
    assert not list(folder.glob("part-*"))


def test_workers_are_gpus_or_groups_of_cpus() -> None:
    assert pool_of(ClusterInfo(1, 1, 0), "auto", None) == Pool(1, 1, "cpu")
    assert pool_of(ClusterInfo(1, 2, 0), "auto", None) == Pool(2, 1, "cpu")
    assert pool_of(ClusterInfo(2, 64, 8), "cpu", None) == Pool(16, 4, "cpu")
    assert pool_of(ClusterInfo(2, 64, 8), "auto", 4) == Pool(4, 16, "cuda")
    with pytest.raises(ConfigError, match="the cluster has 8 GPUs; allowed: 1 to 8"):
        pool_of(ClusterInfo(2, 64, 8), "cuda", 9)


def test_the_speed_counts_from_the_moment_when_all_workers_have_begun() -> None:
    def done(worker: str, began: float, ended: float) -> Outcome:
        return Outcome(worker, Shard(0, "x", 100, 1, "", ""), TokenCounts(), began, ended)

    outcomes = [done("a", 10, 20), done("b", 15, 25), done("a", 20, 25), done("c", 24, 25)]
    # Worker c replaced another one. From 15 s on: half of the first range and all others.
    assert speed_of(outcomes, 5, 2) == (10, 35.0)
    assert speed_of([], 5, 2) == (0, 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["in.txt", "--engine", "ray", "--shards", "1/2"], "--engine ray already divides the work"),
        (["-", "--engine", "ray"], "cannot read standard input"),
        (["in.txt", "--workers", "2"], "--workers is for --engine ray; leave it out"),
        (["in.txt", "--engine", "spark"], "allowed: local, ray, or ray:ADDRESS"),
        (["none.txt", "--engine", "ray"], "none.txt: "),
    ],
)
def test_options_that_do_not_fit_the_engine_are_refused(
    more: list[str],
    message: str,
    simcse: Simcse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("A cat sat.\n")
    done = simcse("encode", "mini", *more, "--output", "out/")
    assert (done.code, done.err.count("error:")) == (2, 1)
    assert message in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
