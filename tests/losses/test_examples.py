"""Every loss has an example in its docstring; tests/test_examples.py runs them."""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules

from simcse_kit import losses

MODULES = [
    import_module(f"{losses.__name__}.{found.name}") for found in iter_modules(losses.__path__)
]
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


def test_every_loss_has_an_example() -> None:
    for module in MODULES:
        for name in set(module.__all__) - HELPERS:
            loss = getattr(module, name)
            assert not inspect.isfunction(loss) or ">>>" in str(loss.__doc__), name
