"""A plugin of pytest that writes every result at once, so that a crash loses none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_runtest_logstart(nodeid: str) -> None:
    """Write that a test begins."""
    _write(nodeid, "started")


def pytest_runtest_logreport(report: Any) -> None:
    """Write how a test ended."""
    if report.when == "call" or report.outcome != "passed":
        _write(report.nodeid, report.outcome, _reason(report))


def pytest_collectreport(report: Any) -> None:
    """Write that a file cannot be imported."""
    if report.failed:
        _write(report.nodeid, "failed", _reason(report))


def _reason(report: Any) -> str:
    if report.outcome == "skipped":
        return str(report.longrepr[-1])
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return " ".join(text.split())[:200]


def _write(name: str, outcome: str, reason: str = "") -> None:
    with Path(os.environ["GPU_CHECK_RESULTS"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, "outcome": outcome, "reason": reason}) + "\n")
