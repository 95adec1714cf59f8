"""Fixtures for the evaluation tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.synthetic import BagOfWords, use_small_counts, write_senteval


@pytest.fixture
def senteval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small SentEval folder whose counts the tasks expect."""
    use_small_counts(monkeypatch)
    return write_senteval(tmp_path / "senteval")


@pytest.fixture
def encoder() -> BagOfWords:
    return BagOfWords()
