"""Pausing the collection of cyclic garbage."""

from __future__ import annotations

import gc

import pytest

from simcse_kit.utils.process import collection_paused


def test_off_inside_and_as_before_afterwards() -> None:
    assert gc.isenabled()
    with collection_paused():
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collection_paused():
        _ = 1 / 0
    assert gc.isenabled()


def test_who_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with collection_paused(keep=True):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_kept_is_not_looked_through_again() -> None:
    gc.unfreeze()  # what earlier tests kept
    with collection_paused():
        pass
    assert gc.get_freeze_count() == 0
    try:
        with collection_paused(keep=True):
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
