"""The command line inside this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from simcse_kit.cli.main import main
from tests.small_data import write_corpus, write_pairs


class Done(NamedTuple):
    code: int
    out: str
    err: str


Simcse = Callable[..., Done]


@pytest.fixture(autouse=True)
def _put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command configures logging for its process."""
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda *_, **__: None)
    package = logging.getLogger("simcse_kit")
    kept = package.handlers[:], package.level, package.propagate
    yield
    package.handlers[:], package.level, package.propagate = kept


@pytest.fixture
def simcse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Simcse:
    """Run the command with these arguments."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["simcse", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Done(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "graded.tsv")
