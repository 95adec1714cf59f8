"""`simcse eval --post` and `simcse postprocess`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Simcse

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Enough text to fit a map of 128 dimensions."""
    path = tmp_path / "text.txt"
    lines = (DATA / "sentences.txt").read_text("utf-8").split("\n")[:600]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.long
def test_a_map_is_tried_and_kept(simcse: Simcse, tmp_path: Path, text: Path) -> None:
    run = simcse(
        "eval", "mini", "--tasks", DATA / "sts.tsv", "--resamples", "0",
        "--post", "standardize,abtt(k=1)", "--fit", text,
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "mini + abtt(k=1)" in run.out
    run = simcse(
        "postprocess", "mini", "--post", "abtt(k=1)", "--fit", text,
        "--output", tmp_path / "kept",
    )  # fmt: skip
    assert run.code == 0, run.err
    again = simcse("eval", tmp_path / "kept", "--tasks", DATA / "sts.tsv", "--resamples", "0")
    tried = json.loads((tmp_path / "scores.json").read_text())["reports"][2]
    assert f"{tried['tasks']['sts']['spearman']:.2f}" in again.out


def test_what_is_refused(simcse: Simcse, tmp_path: Path, text: Path) -> None:
    alone = simcse("eval", "mini", "--tasks", DATA / "sts.tsv", "--post", "abtt")
    assert alone.code == 2
    assert "go together" in alone.err
    several = simcse(
        "postprocess", "mini", "--post", "abtt,standardize", "--fit", text,
        "--output", tmp_path / "kept",
    )  # fmt: skip
    assert several.code == 2
    assert "give one map" in several.err
    assert not (tmp_path / "kept").exists()
