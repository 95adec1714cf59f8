"""Parts of encoding on a cluster, without a cluster."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from simcse_kit.bulk.job import BulkJob
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.row_ranges import RangeReader, RangeStart, range_starts
from simcse_kit.bulk.sentence_files import SentenceFile
from simcse_kit.bulk.shard_log import JOB, Shard, text_checksum
from simcse_kit.bulk.text_source import TextSource
from simcse_kit.cluster import encode, pool, vectors
from simcse_kit.cluster.connection import ClusterInfo
from simcse_kit.cluster.encode import RayJob, RayResult, speed_of
from simcse_kit.cluster.encode_worker import EncodeWork, Outcome, RowRange, ShardWorker
from simcse_kit.cluster.pool import Pool, RayRun, pool_of, ray_run
from simcse_kit.cluster.vectors import ClusterEncoder
from simcse_kit.cluster.worker_model import WorkerModel, shown_error
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError, DataError, MissingExtraError, SimcseError
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
    torch.set_num_threads(2)
    # Seven workers ended while they encoded the range; the eighth one may try it.
    (work.output.folder / f".{1:016x}.tmp").write_bytes(b"." * 7)
    found = outcome(work, *range_starts(work.files, [20], [10]))
    assert found.error is None
    assert torch.get_num_threads() == work.model.threads == 1
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
        ("full disk", ConfigError, "free disk space, then the same command continues the job"),
        ("no memory", SimcseError, "ran out of memory; finished shards are kept; continue with a"),
    ],
)
def test_errors_come_back_as_outcomes_and_leave_no_shard(
    case: str,
    kind: type[Exception],
    message: str,
    work: EncodeWork,
    monkeypatch: pytest.MonkeyPatch,
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
    elif case == "full disk":
        (folder / f".{1:016x}.tmp").mkdir()  # cannot be written either
    elif case == "no memory":
        monkeypatch.setattr(RangeReader, "read", fails(MemoryError()))
    else:
        (folder / f".{1:016x}.tmp").write_bytes(b"." * 8)
    error = outcome(work, start).error
    assert isinstance(error, kind)
    assert message in str(error)
    assert not list(folder.glob("part-*"))


def fails(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_a_worker_without_memory_gives_advice(error: Exception) -> None:
    shown = shown_error(error, "start fewer workers")
    assert str(shown).endswith(" ran out of memory; start fewer workers")


def test_errors_reach_the_other_process_unless_they_are_faults_of_the_program() -> None:
    error = shown_error(MissingExtraError("this model", "serve"), "")
    assert "pip install" in str(pickle.loads(pickle.dumps(error)))
    with pytest.raises(ZeroDivisionError):
        shown_error(ZeroDivisionError(), "")


def test_workers_are_gpus_or_groups_of_cpus() -> None:
    assert pool_of(ClusterInfo(1, 1, 0), "auto", None) == Pool(1, 1, "cpu")
    assert pool_of(ClusterInfo(1, 2, 0), "auto", None) == Pool(2, 1, "cpu")
    assert pool_of(ClusterInfo(2, 64, 8), "cpu", None) == Pool(16, 4, "cpu")
    assert pool_of(ClusterInfo(2, 64, 8), "auto", 4) == Pool(4, 16, "cuda")
    assert pool_of(ClusterInfo(1, 4, 8), "auto", None) == Pool(8, 1, "cuda")
    with pytest.raises(ConfigError, match="the cluster has 8 GPUs; allowed: 1 to 8"):
        pool_of(ClusterInfo(2, 64, 8), "cuda", 9)


def test_workers_find_a_model_whose_path_is_relative(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def connected(*_: object) -> Iterator[ClusterInfo]:
        yield ClusterInfo(1, 2, 0)

    monkeypatch.setattr(pool, "connected", connected)
    monkeypatch.chdir(tiny_encoder_dir.parent)
    encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
    with ray_run("ray", tiny_encoder_dir.name, {"pooling": "cls"}) as run:
        assert run.on_workers(encoder) == WorkerModel(
            str(tiny_encoder_dir),
            {"pooling": "cls", "device": "cpu"},
            fingerprint(tiny_encoder_dir),
            threads=1,
        )
    with ray_run("ray", "small", {}) as run:
        assert run.model == "small"


def in_this_process(worker: type, work: Any, items: Sequence[Any], pool: Pool) -> Iterator[Any]:
    """The results of one worker in another folder, from the last item to the first."""
    del pool
    function = worker(pickle.loads(pickle.dumps(work)))
    for item in reversed(items):
        with chdir("/"):
            (found,) = function({"item": [pickle.dumps(item)]})["result"]
        yield pickle.loads(found)


@pytest.fixture
def run(tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch, _threads: None) -> RayRun:
    for module in (encode, vectors):
        monkeypatch.setattr(module, "pooled", in_this_process)
        monkeypatch.setattr(module, "failures", lambda *_, **__: nullcontext())
    return RayRun(Pool(1, 1, "cpu"), str(tiny_encoder_dir), {}, time.time())


@pytest.fixture
def encoded(
    run: RayRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RayResult]:
    """Encode 25 sentences, of which one is long, in shards of 10."""
    monkeypatch.chdir(tmp_path)
    text = [*sentences(24), "cat " * 40]
    Path("in.txt").write_text("\n".join(text), encoding="utf-8")

    def encoded(engine: str = "ray", **options: Any) -> RayResult:
        encoder = SentenceEncoder.load(run.model, device="cpu")
        source, output = TextSource("in.txt"), OutputSpec.of(f"{engine}/", shard_rows=10)
        chosen = EncodeOptions(**options)
        if engine == "local":
            return cast("RayResult", BulkJob(encoder, output, chosen, chunk=100).run(source))
        return RayJob(encoder, output, chosen, run, source, chunk=100).run(source)

    return encoded


def test_a_job_counts_no_attempts_of_the_job_before(
    encoded: Callable[..., RayResult], tmp_path: Path
) -> None:
    assert encoded().computed == 25
    folder = tmp_path / "ray"
    (folder / "part-000001.npy").unlink()
    (folder / f".{1:016x}.tmp").write_bytes(b"." * 8)
    assert encoded().computed == 10
    assert not list(folder.glob(".*"))


def test_sentences_that_workers_cut_are_counted(encoded: Callable[..., RayResult]) -> None:
    assert encoded().tokens["cut"] == 1


def test_int8_layers_are_calibrated_with_the_first_shard_whatever_is_missing(
    encoded: Callable[..., RayResult], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    encoded("local", precision="int8")
    last = "part-000002.npy"
    expected = np.load(tmp_path / "local" / last)
    for _ in range(2):
        encoded(precision="int8")
        np.testing.assert_allclose(np.load(tmp_path / "ray" / last), expected, atol=1e-6)
        (tmp_path / "ray" / last).unlink()


def test_a_shard_on_the_disk_of_a_worker_alone_ends_the_job(
    encoded: Callable[..., RayResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*arguments: Any) -> Iterator[Any]:
        for found in in_this_process(*arguments):
            (tmp_path / "ray" / found.entry.file).unlink()
            yield found

    monkeypatch.setattr(encode, "pooled", elsewhere)
    monkeypatch.setattr(encode, "_VISIBLE_WITHIN", 0.2)
    with pytest.raises(ConfigError, match="give an --output on a disk that all machines share"):
        encoded()
    assert not (tmp_path / "ray").exists()


def test_vectors_of_pieces_are_those_of_the_encoder(
    run: RayRun, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
    encoder.prompts = {"query": "cat ", "document": "dog "}
    texts = [*sentences(10), *sentences(3)]
    cluster = ClusterEncoder(encoder, run, piece=4)
    for name, options in (
        ("encode", {"normalize": True}),
        ("encode", {"prompt": "the "}),
        ("encode_query", {}),
        ("encode_document", {"normalize": False}),
    ):
        found, expected = (getattr(each, name)(texts, **options) for each in (cluster, encoder))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    monkeypatch.setattr(SentenceEncoder, "encode", fails(MemoryError()))
    with pytest.raises(SimcseError, match="nothing was written; use machines with more memory"):
        cluster.encode(texts)


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
