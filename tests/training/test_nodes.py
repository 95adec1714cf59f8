"""Two nodes that meet by torchrun's rendezvous, of which one is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_data import write_corpus

SCRIPT = Path(__file__).parents[2] / "evaluation" / "reliability" / "nodes.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 needs Linux")
def test_two_nodes_train_like_one_process_and_one_goes_on_alone(
    tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    options = ["--model", str(tiny_encoder_dir), "--text", str(write_corpus(tmp_path))]
    output = tmp_path / "nodes.json"
    command = [sys.executable, str(SCRIPT), "--network", "loopback", "--steps", "300", *options]
    subprocess.run([*command, "--output", str(output)], check=True)
    found = json.loads(output.read_text())
    assert found["two nodes, largest difference"] < 1e-5
    assert found["resumed on one node, largest difference"] < 1e-5
    assert found["exit code of the other node"] != 0
    assert "process 0 of 2 has lost the others" in found["its message"]
    assert found["last checkpoint before the kill"] < 300
