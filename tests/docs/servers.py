"""The server that a page starts with ``simcse serve``: in a process of its own, on a free port."""

from __future__ import annotations

import re
import subprocess
import sys

ADDRESS = "http://127.0.0.1:8000"
"""Address in the pages, which stands for that of the running server."""


class PageServer:
    """The server that the page started last."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._address = ADDRESS

    def start(self, words: list[str]) -> None:
        """Stop the former server, and run ``simcse serve ...`` until the next one."""
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simcse_kit", *words[1:], "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, f"{words} did not start: {line}"
        self._address = found[0]

    def located(self, code: str) -> str:
        """Return code of the page with the address of the running server."""
        return code.replace(ADDRESS, self._address)

    def curl(self, words: list[str]) -> None:
        """Run ``curl ...``, which must be answered without an error."""
        command = ["curl", "--silent", "--show-error", "--fail", *map(self.located, words[1:])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """End the server; it must exit with code 0."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=60)
            assert self._process.returncode == 0
            self._process = None
