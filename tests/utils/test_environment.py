"""Results record their environment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from simcse_kit.utils.environment import environment


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_that_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert "commit" not in environment()
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "Add a")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert environment()["commit"] == head
    (tmp_path / "a").write_text("2")
    assert environment()["commit"] == head + "+"


def test_versions_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git: nothing to fail on
    found = environment()
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["threads"] == str(torch.get_num_threads())
    assert found["cpu"].endswith("cores)")
    assert "commit" not in found
