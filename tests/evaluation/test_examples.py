"""The examples in docstrings of the evaluation's tables, statistics and report."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "utils.tables",
    "evaluation.report.curves",
    "evaluation.report.figures",
    "evaluation.report.numbers",
    "evaluation.statistics.bootstrap",
    "evaluation.statistics.comparison",
    "evaluation.statistics.distribution",
    "evaluation.statistics.error_analysis",
    "evaluation.statistics.jackknife",
    "evaluation.statistics.significance",
    "evaluation.statistics.weighted_spearman",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"simcse_kit.{name}"))
    assert (failed, tried > 0) == (0, True)
