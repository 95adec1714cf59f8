"""Records of a run in a model's folder that somebody else made."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.errors import DataError
from simcse_kit.evaluation import run_records
from simcse_kit.evaluation.contamination.recorded import recorded_leaks
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.report.curves import series, training_curves
from simcse_kit.evaluation.run_records import read_history, read_training_files

GOOD = '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0, "note": "text", "dev_spearman": NaN}\n'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, links and /dev")


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A pipe that is waited for fails at once, and not when the whole suite's patience is over."""
    timer = threading.Timer(20, os._exit, [3])
    timer.start()
    yield
    timer.cancel()


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "simcse_kit")


def test_good_records_are_read_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.jsonl").write_text(GOOD)
    assert read_history(tmp_path) == [{"step": 1.0, "loss": 2.5}, {"step": 2.0, "loss": 2.0}]
    assert not caplog.records
    assert read_history(tmp_path / "absent") is None


BAD_LINES = {
    "no JSON": '{"step": 3, "lo',
    "deep": "[" * 30_000,
    "a deep record": '{"step": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "a list": "[1, 2]",
    "a number": "3",
    "no step": '{"loss": 1.0}',
    "a step in words": '{"step": "three", "loss": 1.0}',
    "a step that is true": '{"step": true, "loss": 1.0}',
    "a step of 400 digits": '{"step": ' + "9" * 400 + "}",
    "a step of 5,000 digits": '{"step": ' + "9" * 5000 + "}",
    "an infinite step": '{"step": Infinity}',
    "bytes": b"\xff\xfe\x00".decode("latin-1"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_records_are_skipped_and_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"{GOOD}{BAD_LINES[name]}\n".encode("latin-1"))
    assert read_history(tmp_path) == [{"step": 1.0, "loss": 2.5}, {"step": 2.0, "loss": 2.0}]
    assert f"{path}: skipped 1 lines" in caplog.text
    assert "the first is line 3" in caplog.text


def test_figures_that_have_no_place_on_an_axis_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 10**400},
        {"step": 2, "loss": 1e308, "dev_spearman": [50]},
        {"step": 3, "loss": 1.5, "dev_spearman": -(10**300)},
        {"step": 4, "loss": "x", "learning_rate": None, "uniformity": {"a": 1}},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    history = read_history(tmp_path)
    assert history is not None
    assert [sorted(row) for row in history] == [["step"], ["step"], ["loss", "step"], ["step"]]
    assert [panel.title for panel in training_curves(history)] == ["Loss"]
    # The same from Python, where rows are not read from a file.
    assert series(rows[:1], "loss")[0].size == 0  # type: ignore[arg-type]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def outside(path: Path) -> None:
    (path.parent.parent / "elsewhere").write_text(GOOD)
    path.symlink_to("../elsewhere")


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)


def unreadable(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = [pipe, device, folder, outside, large, unreadable]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_the_folder_is_not_opened(
    kind: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "model"
    home.mkdir()
    kind(home / "metrics.jsonl")
    kind(home / "run.toml")
    assert read_history(home) is None
    assert "metrics.jsonl is not shown" in caplog.text
    with pytest.raises(DataError, match=r"run\.toml: cannot be read"):
        read_training_files(home)
    assert recorded_leaks(home, {"t": [PAIRS]}) is None
    assert "the training text is not searched for leaks" in caplog.text


def test_links_of_the_hub_s_cache_are_followed(tmp_path: Path) -> None:
    home = tmp_path / "snapshots" / "abc"
    home.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "123").write_text(GOOD)
    (home / "metrics.jsonl").symlink_to("../../blobs/123")
    history = read_history(home)
    assert history is not None
    assert len(history) == 2


def test_too_many_and_too_long_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "note": "' + "x" * 70_000 + '"}\n')
    assert read_history(tmp_path) is None
    assert "line 1 is longer than" in caplog.text
    monkeypatch.setattr(run_records, "_MOST_ROWS", 3)
    path.write_text('{"step": 1}\n' * 4)
    assert read_history(tmp_path) is None
    assert "has more than 3 lines" in caplog.text


PAIRS = PairSet("t", ["A cat.", "b"], ["One bird", "No"], np.array([1.0, 2.0]))

RECORDS = {
    "no TOML": "no toml",
    "deep": "data.train = " + "[" * 5000,
    "a deep table": "[" + ".".join(["a"] * 3000) + "]\n",
    "no data": "[model]\nname = 'mini'\n",
    "data is a list": "data = [1, 2]\n",
    "files are numbers": "[data]\ntrain = [1, 2]\n",
    "files are a table": "[data]\ntrain = {a = 1}\n",
    "columns are a number": "[data]\ntrain = ['a.txt']\ncolumns = 3\n",
    "bytes": "\udcff",
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_names_no_files(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.toml").write_bytes(RECORDS[name].encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"run\.toml: "):
        read_training_files(tmp_path)
    assert recorded_leaks(tmp_path, {"t": [PAIRS]}) is None
    assert caplog.text.count("\n") == 1


def test_a_file_or_a_folder_of_files_is_named(tmp_path: Path) -> None:
    text = tmp_path / "data" / "a.txt"
    text.parent.mkdir()
    text.write_text("a CAT\nmore\n")
    for named in (repr(str(text)), f"[{str(text)!r}]", f"[{str(text.parent)!r}]"):
        (tmp_path / "run.toml").write_text(f"[data]\ntrain = {named}\n")
        found = recorded_leaks(tmp_path, {"t": [PAIRS]})
        assert found is not None
        assert found.sets["t"].touched == 1


def test_model_files_that_are_pipes_are_skipped(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    from simcse_kit.encoder.folder.fingerprint import fingerprint

    home = tmp_path / "model"
    shutil.copytree(tiny_encoder_dir, home)
    before = fingerprint(home)
    os.mkfifo(home / "more.bin")
    assert fingerprint(home) == before
