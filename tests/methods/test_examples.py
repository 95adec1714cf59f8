"""Every method has an example in its docstring; tests/test_examples.py runs them."""

from __future__ import annotations

from simcse_kit.methods import METHODS


def test_every_method_has_an_example() -> None:
    for name in METHODS:
        assert ">>> " in str(METHODS.resolve(name).__doc__), name
