"""Bulk encoding: every row once and in order, whatever interrupts the job."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from simcse_kit.bulk import job as jobs
from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.job import BulkJob, BulkResult
from simcse_kit.bulk.output import FORMAT_NAMES, OutputSpec
from simcse_kit.bulk.shard_log import ShardLog
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, ModelError
from tests.small_data import sentences

TEXTS = [*sentences(20), 'a "quoted" cat, café 猫', "a \\ b"]
DIM = 32


class KilledError(BaseException):
    """Ends a job where nothing is cleared away, as SIGKILL does."""


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


def read(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Texts, where the format has them, and vectors."""
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".safetensors":
        return None, load_file(path)["embeddings"]
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        flat = np.stack(table["embedding"].to_numpy())
        return table["text"].to_pylist(), flat
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    vectors = np.array([row["embedding"] for row in rows]).astype(np.float32)
    return [row["text"] for row in rows], vectors


def run(encoder: SentenceEncoder, output: Path | str, texts: list[str], **more: Any) -> BulkResult:
    target = {"shard_rows": 5} | {
        key: more.pop(key) for key in ("format", "shard_rows", "part") if key in more
    }
    read = {key: more.pop(key) for key in ("total", "text_bytes") if key in more}
    options = EncodeOptions(**{key: more.pop(key) for key in ("precision",) if key in more})
    spec = OutputSpec.of(str(output), **target)
    return BulkJob(encoder, spec, options, chunk=3, **more).run(iter(texts), **read)


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_each_format_holds_the_rows_in_order(
    name: str, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    expected = encoder.encode(TEXTS)
    path = tmp_path / f"v.{name}"
    done = run(encoder, path, TEXTS, total=len(TEXTS))
    assert (done.rows, done.dim, done.computed, done.complete) == (len(TEXTS), DIM, 22, True)
    texts, vectors = read(path)
    assert texts in (None, TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    # A folder of shards holds the same bytes of vectors.
    run(encoder, tmp_path / "folder", TEXTS, format=name)
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    parts = [read(tmp_path / "folder" / shard["file"])[1] for shard in manifest["shards"]]
    assert [len(part) for part in parts] == [5, 5, 5, 5, 2]
    assert np.concatenate(parts).tobytes() == vectors.tobytes()
    assert manifest["rows"] == len(TEXTS)


def test_numbers_of_jsonl_read_back_to_the_same_float32(tmp_path: Path) -> None:
    wild = np.frombuffer(np.random.default_rng(0).bytes(4 * 40_000), np.float32)
    wild = wild[np.isfinite(wild)][:39_000].reshape(-1, 30)
    path = tmp_path / "v.jsonl"
    with FORMATS["jsonl"].writer(path, len(wild), np.dtype(("<f4", (30,)))) as write:
        write(["x"] * len(wild), wild)
    assert read(path)[1].tobytes() == wild.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("name", FORMAT_NAMES)
@pytest.mark.parametrize("killed_at", [0, 1, 4])
def test_a_killed_job_goes_on_and_gives_the_same_bytes(
    name: str,
    killed_at: int,
    encoder: SentenceEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = tmp_path / f"whole.{name}"
    digest = run(encoder, whole, TEXTS).sha256
    target = tmp_path / f"v.{name}"
    add, computed = ShardLog.add, []

    def die(self: ShardLog, entry: Any) -> None:
        computed.append(entry.shard)
        if len(computed) > killed_at:
            raise KilledError
        add(self, entry)

    with monkeypatch.context() as patched:
        patched.setattr(ShardLog, "add", die)
        with pytest.raises(KilledError):
            run(encoder, target, TEXTS)
    assert not target.exists()
    journal = target.with_name(target.name + ".parts") / "journal-1-of-1.jsonl"
    if killed_at:
        journal.write_text(journal.read_text() + '{"shard": 4, "fi')  # torn
    done = run(encoder, target, TEXTS)
    assert done.computed == len(TEXTS) - 5 * killed_at
    assert (done.sha256, done.rows) == (digest, len(TEXTS))
    assert target.read_bytes() == whole.read_bytes()
    assert not journal.parent.exists()


@pytest.mark.parametrize(
    "planted",
    [
        {"file": "../important.txt"},
        {"file": "sub/../../important.txt"},
        {"shard": [1]},
        {"rows": "9"},
        {"bytes": None},
    ],
)
def test_planted_journal_lines_are_passed_over(planted: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    line = {"shard": 0, "file": "s.npy", "rows": 5, "bytes": 4, "text": "", "sha256": ""}
    (folder / "s.npy").write_text("four")
    journal = folder / "journal-1-of-1.jsonl"
    journal.write_text(json.dumps(line) + "\n")
    assert list(ShardLog(folder, (1, 1)).finished()) == [0]
    journal.write_text(json.dumps(line | planted) + "\n")
    assert ShardLog(folder, (1, 1)).finished() == {}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_of_an_array_fill_one_folder(
    order: tuple[int, ...], encoder: SentenceEncoder, tmp_path: Path
) -> None:
    alone = run(encoder, tmp_path / "alone", TEXTS)
    for number, part in enumerate(order):
        done = run(encoder, tmp_path / "v", TEXTS, part=(part, 3))
        assert done.complete == (number == 2)
    assert sum(1 for _ in (tmp_path / "v").glob("journal-*")) == 3
    for path in (tmp_path / "alone").glob("part-*"):
        assert (tmp_path / "v" / path.name).read_bytes() == path.read_bytes()
    assert done.rows == alone.rows
    # Once more: everything is there.
    assert run(encoder, tmp_path / "v", TEXTS).computed == 0


def test_int8_gives_the_same_bytes_after_a_kill(
    encoder: SentenceEncoder, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    whole = run(encoder, tmp_path / "whole.npy", TEXTS, precision="int8")
    for part in (2, 1):
        anew = SentenceEncoder.load(tiny_encoder_dir)  # its ranges are its own
        run(anew, tmp_path / "v", TEXTS, part=(part, 2), precision="int8")
    parts = [np.load(path) for path in sorted((tmp_path / "v").glob("part-*"))]
    assert np.concatenate(parts).tobytes() == np.load(tmp_path / "whole.npy").tobytes()
    assert whole.rows == 22


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": [*TEXTS[:7], "another cat", *TEXTS[8:]]}, "other sentences: rows 6 to 10"),
        ({"shard_rows": 4}, "shard_rows was 5, is 4"),
        ({"format": "jsonl"}, "format was 'npy', is 'jsonl'"),
        ({"precision": "int8"}, "precision was 'fp32', is 'int8'"),
    ],
)
def test_another_job_is_refused_and_may_be_overwritten(
    change: dict[str, Any], said: str, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    run(encoder, tmp_path / "v", TEXTS)
    change = {"texts": TEXTS, **change}
    with pytest.raises(ConfigError, match=rf"{said}.*--overwrite"):
        run(encoder, tmp_path / "v", **change)
    assert run(encoder, tmp_path / "v", **change, overwrite=True).computed == len(TEXTS)


def test_a_shard_that_the_disk_has_spoilt_is_made_again(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    digest = run(encoder, tmp_path / "v", TEXTS).sha256
    part = tmp_path / "v" / "part-000001.npy"
    content = part.read_bytes()
    part.write_bytes(content[:-1])  # shorter: seen at the start
    assert run(encoder, tmp_path / "v", TEXTS).computed == 5
    part.write_bytes(content[:-1] + b"x")  # another byte: seen at the end
    with pytest.raises(ConfigError, match=r"part-000001\.npy is not as it was written"):
        run(encoder, tmp_path / "v", TEXTS)
    assert run(encoder, tmp_path / "v", TEXTS).sha256 == digest
    assert part.read_bytes() == content


def test_what_the_disk_gives_back_is_compared(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def spoilt(parts: Any, path: Path, rows: int, dim: int) -> None:
        join(parts, path, rows, dim)
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    join = FORMATS["npy"].join
    monkeypatch.setitem(FORMATS, "npy", replace(FORMATS["npy"], join=spoilt))
    with pytest.raises(ConfigError, match="the disk returns other data than was written"):
        run(encoder, tmp_path / "v.npy", TEXTS)
    assert not (tmp_path / "v.npy").exists()


def test_bad_input_leaves_nothing_or_what_is_finished(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    def broken(count: int) -> Any:
        yield from TEXTS[:count]
        raise DataError("blank line", file="a.txt", line=count + 1)

    for count, left in ((4, []), (11, ["v.npy.parts"])):
        with pytest.raises(DataError, match=f"a.txt:{count + 1}: blank line"):
            run(encoder, tmp_path / "v.npy", broken(count))
        assert [entry.name for entry in tmp_path.iterdir()] == left
    assert run(encoder, tmp_path / "v.npy", TEXTS).computed == len(TEXTS) - 5


def test_a_vector_that_is_no_number_is_refused(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    ill = SentenceEncoder.load(tiny_encoder_dir)
    with torch.no_grad():
        ill.backbone.get_input_embeddings().weight[ill.tokenizer.convert_tokens_to_ids("dog")] = (
            torch.nan
        )
    with pytest.raises(ModelError, match="the vector of sentence 7 is not finite"):
        run(ill, tmp_path / "v.npy", ["a cat"] * 6 + ["a dog"])
    assert not (tmp_path / "v.npy").exists()


def test_too_little_room_is_refused(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * len(TEXTS) * DIM * 4
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(jobs, "free_bytes", lambda _, free=free: free)
        if fits:
            assert run(encoder, tmp_path / "v.npy", TEXTS, total=len(TEXTS)).complete
        else:
            with pytest.raises(
                ConfigError, match=r"shards and the joined file together.*free disk space"
            ):
                run(encoder, tmp_path / "w.npy", TEXTS, total=len(TEXTS))


@pytest.mark.parametrize("harm", ["stranger", "torn job", "job is a list"])
def test_folders_of_others_are_left_alone(
    harm: str, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    name = "thesis.tex" if harm == "stranger" else "job.json"
    (folder / name).write_text("[]" if harm == "job is a list" else "{")
    with pytest.raises(ConfigError, match=r"--overwrite|another --output"):
        run(encoder, folder, TEXTS)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_long_sentences_end_a_shard(
    encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SHARD_CHARACTERS", 30)
    run(encoder, tmp_path / "v", ["a cat" * 4] * 6)
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert [shard["rows"] for shard in manifest["shards"]] == [2, 2, 2]


def test_no_sentence_gives_an_empty_array(encoder: SentenceEncoder, tmp_path: Path) -> None:
    assert run(encoder, tmp_path / "v.npy", []).rows == 0
    assert np.load(tmp_path / "v.npy").shape == (0, DIM)


@pytest.mark.long
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kills=st.lists(st.integers(0, 8), max_size=6),
    shard_rows=st.integers(1, 9),
    name=st.sampled_from(FORMAT_NAMES),
)
def test_any_row_of_kills_ends_in_the_same_bytes(
    kills: list[int],
    shard_rows: int,
    name: str,
    encoder: SentenceEncoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("job")
    whole = run(encoder, folder / f"whole.{name}", TEXTS, shard_rows=shard_rows)
    for after in kills:
        add: Callable[..., None] = ShardLog.add
        left = [after]

        def die(self: ShardLog, entry: Any, left: list[int] = left) -> None:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            add(self, entry)  # noqa: B023

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ShardLog, "add", die)
            try:
                run(encoder, folder / f"v.{name}", TEXTS, shard_rows=shard_rows)
            except KilledError:
                continue
        break
    done = run(encoder, folder / f"v.{name}", TEXTS, shard_rows=shard_rows)
    assert done.sha256 == whole.sha256


def test_finished_shards_are_named(
    encoder: SentenceEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(encoder, tmp_path / "v", TEXTS)
    with caplog.at_level(logging.INFO, "simcse_kit"):
        run(encoder, tmp_path / "v", TEXTS)
    assert "5 finished shards are kept" in caplog.text


# ---------------------------------------------------------------- several at once


class Paused:
    """Sentences that stop after the first shard until another job has been tried."""

    def __init__(self, texts: list[str], then: Callable[[], Any]):
        self.texts, self.then = texts, then

    def __iter__(self) -> Any:
        yield from self.texts[:11]
        self.then()
        yield from self.texts[11:]


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
@pytest.mark.parametrize("output", ["v.npy", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_same_command_at_once_is_refused_and_the_first_goes_on(
    output: str, overwrite: bool, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    def again() -> None:
        with pytest.raises(ConfigError, match=r"is encoding to the same output; wait"):
            run(encoder, tmp_path / output, TEXTS, overwrite=overwrite)

    done = run(encoder, tmp_path / output, Paused(TEXTS, again))  # type: ignore[arg-type]
    assert done.complete
    assert not list(tmp_path.rglob(".*"))
    assert run(encoder, tmp_path / output, TEXTS).complete


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_parts_run_at_once_and_spoil_nothing_of_each_other(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"

    def others() -> None:
        # The same part, the whole, and a new beginning are refused; the other part is not, even
        # where it fails before it has finished a shard.
        for part, overwrite in (((1, 2), False), ((1, 1), False), ((2, 2), True)):
            with pytest.raises(ConfigError, match=r"is encoding to the same|compute parts of"):
                run(encoder, folder, TEXTS, part=part, overwrite=overwrite)
        with pytest.raises(DataError):
            run(encoder, folder, Broken(), part=(2, 2))  # type: ignore[arg-type]
        assert not run(encoder, folder, TEXTS, part=(2, 2)).complete

    class Broken:
        def __iter__(self) -> Any:
            raise DataError("blank line")

    assert run(encoder, folder, Paused(TEXTS, others), part=(1, 2)).complete  # type: ignore[arg-type]
    assert not list(tmp_path.rglob(".*"))
    assert json.loads((folder / "manifest.json").read_text())["rows"] == len(TEXTS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
@pytest.mark.parametrize("parts", [1, 3])
def test_processes_that_start_at_once_leave_one_right_output(
    parts: int, tiny_encoder_dir: Path, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    lines = sentences(400)
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    output = "v.npy" if parts == 1 else "folder"
    command = [sys.executable, "-m", "simcse_kit", "-q", "encode", str(tiny_encoder_dir)]
    command += [str(tmp_path / "a.txt"), "--shard-rows", "40", "--output", str(tmp_path / output)]
    orders = [[], []] if parts == 1 else [["--shards", f"{n}/{parts}"] for n in (1, 2, 3)]
    started = [
        subprocess.Popen([*command, *order], stdout=-1, stderr=-1, text=True) for order in orders
    ]
    said = [process.communicate() for process in started]
    assert not any("Traceback" in err for _, err in said)
    codes = sorted(process.returncode for process in started)
    # One may have been through before the other began.
    assert codes in ([[0, 2], [0, 0]] if parts == 1 else [[0, 0, 0]]), said
    expected = encoder.encode(lines)
    assert not list(tmp_path.rglob(".*"))
    if parts == 1:
        np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "v.npy"]
    else:
        shards = sorted((tmp_path / "folder").glob("part-*"))
        found = np.concatenate([np.load(path) for path in shards])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert (tmp_path / "folder" / "manifest.json").exists()
