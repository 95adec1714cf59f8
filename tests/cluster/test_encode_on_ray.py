"""Bulk encoding on two workers: the files of the local engine, whatever is killed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.text_source import TextSource
from simcse_kit.cluster.encode import RayJob
from simcse_kit.cluster.pool import ray_run
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from tests.cli.conftest import Done, Simcse, simcse
from tests.small_data import sentences, write_tiny_encoder

__all__ = ["simcse"]

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("default"),  # Ray opens files and sockets that it does not close.
    pytest.mark.usefixtures("cluster"),
]

ROWS = 400
SHARD = ["--shard-rows", "25"]
# A shell lets its background jobs, and so these tests, ignore SIGINT.
RESET = """import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "in.txt"
    path.write_text("\n".join(sentences(ROWS)) + "\n\n", encoding="utf-8")
    return path


def encode(simcse: Simcse, model: Path, text: Path, output: str, *more: str) -> Done:
    done = simcse("encode", model, text, "--output", output, *SHARD, *more)
    assert done.code == 0, done.err
    return done


def vectors(folder: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted(folder.glob("part-*.npy"))])


def same(one: Path, two: Path) -> None:
    """Check two folders of the same job: vectors within 1e-6, and the same manifest otherwise."""
    np.testing.assert_allclose(vectors(one), vectors(two), rtol=0, atol=1e-6)
    documents = []
    for folder in (one, two):
        document = json.loads((folder / "manifest.json").read_text())
        for shard in document["shards"]:
            del shard["sha256"]  # the last bit of a sum depends on the number of threads
        documents.append(document)
    assert documents[0] == documents[1]
    assert len(documents[0]["shards"]) == ROWS // 25
    assert not list(two.glob(".*"))


def test_the_files_are_those_of_the_local_engine_and_either_continues_the_other(
    simcse: Simcse, tiny_encoder_dir: Path, text: Path, tmp_path: Path
) -> None:
    local, cluster = tmp_path / "local", tmp_path / "ray"
    encode(simcse, tiny_encoder_dir, text, f"{local}/")
    done = encode(simcse, tiny_encoder_dir, text, f"{cluster}/", "--engine", "ray")
    assert "ray" not in done.err.replace(str(cluster), "")
    assert "verified, SHA-256" in done.out
    assert "workers 2, start-up" in done.out
    same(local, cluster)
    for engine, part in (("local", "part-000003.npy"), ("ray", "part-000000.npy")):
        (cluster / part).unlink()
        done = encode(simcse, tiny_encoder_dir, text, f"{cluster}/", "--engine", engine, "--json")
        assert json.loads(done.out)["computed"] == 25
        same(local, cluster)
    done = encode(simcse, tiny_encoder_dir, text, f"{cluster}/", "--engine", "ray", "--json")
    assert json.loads(done.out)["workers"] == json.loads(done.out)["computed"] == 0


def test_compressed_text_and_int8_vectors_in_one_file(
    simcse: Simcse, tiny_encoder_dir: Path, text: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "in.txt.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.read_bytes()))
    more = ["--output-precision", "int8", "--normalize"]
    tables = []
    for engine in ("local", "ray"):
        output = tmp_path / f"{engine}.parquet"
        encode(simcse, tiny_encoder_dir, packed, str(output), "--engine", engine, *more)
        tables.append(pq.read_table(output))
        assert output.with_suffix(".ranges.npy").exists()
        assert not output.with_name(f"{output.name}.parts").exists()
    assert tables[0]["text"].to_pylist() == tables[1]["text"].to_pylist() == sentences(ROWS)
    ints = [np.stack(table["embedding"].to_numpy()).astype(int) for table in tables]
    assert abs(ints[0] - ints[1]).max() <= 1


def test_files_at_an_address_are_read_by_the_workers(
    simcse: Simcse, tiny_encoder_dir: Path, text: Path, tmp_path: Path
) -> None:
    store, texts = tmp_path / "store", sentences(ROWS)
    store.mkdir()
    pq.write_table(pa.table({"title": texts[:130]}), store / "1.parquet")
    with (store / "2.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"title": text, "year": 1}) + "\n" for text in texts[130:])
    local, cluster = tmp_path / "local", tmp_path / "ray"
    encode(simcse, tiny_encoder_dir, text, f"{local}/")
    arguments = ("encode", tiny_encoder_dir, f"file://{store}", "--columns", "title", *SHARD)
    done = simcse(*arguments, "--output", f"{cluster}/", "--engine", "ray")
    assert done.code == 0, done.err
    same(local, cluster)


def workers() -> list[Any]:
    """The processes of the workers of the cluster of this process."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "MapWorker" in "".join(each.cmdline())]


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kill a worker once a shard is written."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if list(folder.glob("part-*")) and (found := workers()):
            found[0].send_signal(signal.SIGKILL)
            killed.append(found[0].pid)
            return
        time.sleep(0.02)


def test_a_worker_that_is_killed_loses_nothing(
    simcse: Simcse, tiny_encoder_dir: Path, text: Path, tmp_path: Path
) -> None:
    local, cluster = tmp_path / "local", tmp_path / "ray"
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(cluster, killed))
    killer.start()
    done = encode(simcse, tiny_encoder_dir, text, f"{cluster}/", "--engine", "ray")
    killer.join()
    assert killed
    assert "error" not in done.err
    encode(simcse, tiny_encoder_dir, text, f"{local}/")
    same(local, cluster)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_command_that_is_ended_continues(
    number: signal.Signals,
    code: int,
    simcse: Simcse,
    tiny_encoder_dir: Path,
    tmp_path: Path,
    cluster: str,
) -> None:
    text = tmp_path / "in.txt"  # long enough that the job does not end before the signal
    text.write_text("\n".join(sentences(3000)) + "\n", encoding="utf-8")
    local, output = tmp_path / "local", tmp_path / "ray"
    command = ["-m", "simcse_kit", "encode", str(tiny_encoder_dir), str(text), *SHARD]
    command += ["--output", f"{output}/", "--engine", f"ray:{cluster}"]
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    running = subprocess.Popen(
        [sys.executable, "-c", RESET, *command], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        while not list(output.glob("part-*")):
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(number)
        _, printed = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == code
    assert "Traceback" not in printed
    done = encode(simcse, tiny_encoder_dir, text, f"{output}/", "--engine", "ray", "--json")
    assert json.loads(done.out)["complete"]
    encode(simcse, tiny_encoder_dir, text, f"{local}/")
    np.testing.assert_allclose(vectors(local), vectors(output), rtol=0, atol=1e-6)
    assert len(list(output.glob("part-*"))) == 120
    assert not list(output.glob(".*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "3"], "--workers 3: the cluster has 2 CPUs; allowed: 1 to 2"),
        (["--device", "cuda:1"], "Ray assigns the devices; give auto, cpu or cuda"),
        (["--device", "cuda"], "the cluster has no GPU; give --device cpu"),
        (["--precision", "fp16"], "precision 'fp16'"),
    ],
)
def test_options_that_do_not_fit_the_cluster_are_refused(
    more: list[str],
    message: str,
    simcse: Simcse,
    tiny_encoder_dir: Path,
    text: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    done = simcse(
        "encode", tiny_encoder_dir, text, "--output", f"{output}/", "--engine", "ray", *more
    )
    assert (done.code, done.err.count("error:")) == (2, 1), done.err
    assert message in done.err
    assert not output.exists()


def test_a_worker_with_another_model_ends_the_job_and_writes_nothing(
    tiny_encoder_dir: Path, text: Path, tmp_path: Path
) -> None:
    other = write_tiny_encoder(tmp_path / "other")
    shutil.copytree(other, tmp_path / "changed")
    (tmp_path / "changed" / "more.json").write_text("{}")
    encoder = SentenceEncoder.load(tiny_encoder_dir, device="cpu")
    source, spec = TextSource(str(text)), OutputSpec.of(f"{tmp_path}/out/")
    with ray_run("ray", str(tmp_path / "changed"), {}) as run:
        job = RayJob(encoder, spec, EncodeOptions(), run, source, chunk=100)
        with pytest.raises(ConfigError, match="has other files than on the machine of this"):
            job.run(source)
    assert not (tmp_path / "out").exists()
