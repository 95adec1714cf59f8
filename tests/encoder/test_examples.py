"""The examples in the docstrings of the user API run and print what they say."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from simcse_kit.bulk import job
from simcse_kit.encoder import encoder


@pytest.mark.parametrize("module", [encoder, job], ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
