"""The examples in the docstrings of losses and metrics give the results that they show."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

from simcse_kit import losses, metrics
from simcse_kit.methods.common import objective_registry, perturbation, two_towers

MODULES = [
    import_module(f"{package.__name__}.{found.name}")
    for package in (losses, metrics)
    for found in iter_modules(package.__path__)
] + [objective_registry, perturbation, two_towers]
HELPERS = {
    "add_to_logits",
    "candidate_cosines",
    "check_margin",
    "check_prefixes",
    "check_temperature",
    "cross_entropy_in_strips",
    "exclude_false_negatives",
    "full_precision",
    "safe_sqrt",
    "same_text",
    "same_text_changes",
    "strip_width",
    "unit_rows_backward",
}
"""Functions that only the losses call."""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_examples_give_what_they_show(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_every_loss_has_an_example() -> None:
    for module in MODULES:
        if module.__name__.startswith(losses.__name__):
            for name in set(module.__all__) - HELPERS:
                loss = getattr(module, name)
                assert not inspect.isfunction(loss) or ">>>" in str(loss.__doc__), name
