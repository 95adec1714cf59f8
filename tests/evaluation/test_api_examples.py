"""The examples in docstrings of the evaluation."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ["contamination.index", "evaluate", "neighbours", "pair_set", "postprocess"]
MODULES += ["server_answers", "tasks", "tasks.paraphrase", "tasks.retrieval"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"simcse_kit.evaluation.{name}"))
    assert (failed, tried > 0) == (0, True)
