"""The README's commands and code, run as they stand, in order, in one folder.

Training is cut short (``SHORT``) and so is the text (``LINES``): whether the commands work is the
question here. What trains a model several times over (``SLOW``) is left to the slow tier.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# They come after the README's own options, and the last one wins.
SHORT = {
    "train": ["--max-steps", "2", "--batch-size", "16"],
    "verify-resume": ["--steps", "3", "--kills", "1", "--set", "training.batch_size=8"],
}
SLOW = {"verify-resume"}
LINES = 400


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_readme_commands(slow: bool, tmp_path: Path) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shutil.copytree(REPOSITORY / "data", tmp_path / "data")
    sentences = tmp_path / "data" / "sentences.txt"
    lines = sentences.read_text(encoding="utf-8").splitlines(keepends=True)
    sentences.write_text("".join(lines[:LINES]), encoding="utf-8")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SIMCSE_CACHE": str(tmp_path / "cache"),
    }
    ran = 0
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S):
        commands = [[sys.executable, "-c", block]] if language == "python" else []
        if language == "sh":
            commands = [shlex.split(line) for line in block.strip().split("\n")]
        for command in commands:
            if command[0] == "simcse":
                if command[1] in SLOW and not slow:
                    continue
                command += SHORT.get(command[1], [])
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
            ran += 1
    assert ran >= 8
    assert (tmp_path / "my-report" / "report.html").is_file()
    assert (tmp_path / "vectors.npy").is_file()
