"""The examples in docstrings run and give the results that they show."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import simcse_kit
from simcse_kit.data.augment import AUGMENTATIONS
from simcse_kit.evaluation.tasks import TASK_KINDS
from simcse_kit.methods import METHODS

ROOT = Path(simcse_kit.__file__).parent
NAMES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
HELPERS = set(
    "add_to_logits candidate_cosines check_margin check_pairs check_prefixes check_temperature "
    "cross_entropy_in_strips exclude_false_negatives full_precision safe_sqrt same_text "
    "same_text_changes strip_width unit_rows_backward".split()
)
"""Functions that only the losses call."""


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and forget what the examples register."""
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for registry in (AUGMENTATIONS, METHODS, TASK_KINDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.mark.parametrize("name", NAMES)
def test_examples_give_the_results_that_they_show(name: str) -> None:
    failed, tried = doctest.testmod(import_module(name))
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_example(name: str) -> None:
    assert ">>> " in str(METHODS.resolve(name).__doc__)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("simcse_kit.losses.")])
def test_every_loss_has_an_example(name: str) -> None:
    module = import_module(name)
    for function in set(module.__all__) - HELPERS:
        loss = getattr(module, function)
        assert not inspect.isfunction(loss) or ">>>" in str(loss.__doc__), function
