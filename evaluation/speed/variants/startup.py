"""Whole processes, from start to end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def command(params: dict[str, Any], rounds: Any) -> None:
    """Run a command to its end; ``{python}`` in it is this interpreter."""
    words = [word.replace("{python}", sys.executable) for word in params["command"]]
    rounds.ready(command=" ".join(params["command"]).replace("{python}", "python"))
    while True:
        rounds.wait()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        rounds.done()
