"""Any bad model folder is refused in one line, and none of its code runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from tests.cli.conftest import Simcse
from tests.cli.test_commands import refused
from tests.hostile_models import CASES, MARK, stages


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_fifo()
    }


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="pipes")
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, simcse: Simcse, tmp_path: Path, tiny_encoder_dir: Path) -> None:
    home = tmp_path / "home"
    folder = home / "model"
    shutil.copytree(tiny_encoder_dir, folder)
    CASES[name].change(folder)
    before = contents(home)
    output = tmp_path / "vectors.npy"
    text = tmp_path / "a.txt"
    text.write_text("a cat\na dog\n")
    done = simcse("-q", "encode", folder, text, "--output", output)
    refused(done, *(word.format(folder=folder) for word in CASES[name].said))
    assert done.err.count("\n") == 1
    assert len(done.err) < 900
    assert not (home / MARK).exists()
    assert contents(home) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "home"]


def test_what_is_changed_was_good(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_encoder_dir, folder)
    stages({})(folder)
    assert SentenceEncoder.load(folder).encode("a cat").shape == (32,)
    assert len(CASES) >= 60
