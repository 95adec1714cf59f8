"""Start-up: whole processes, from start to end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def command(params: dict[str, Any], rounds: Any) -> None:
    """Run a command. In it, ``{python}`` is this interpreter and ``{work}`` a folder."""
    python, work = sys.executable, params["work"]
    words = [w.replace("{python}", python).replace("{work}", work) for w in params["command"]]
    rounds.ready(command=" ".join(params["command"]).replace("{python}", "python"))
    while True:
        rounds.wait()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        rounds.done()
