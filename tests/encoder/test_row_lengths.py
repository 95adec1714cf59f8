"""Row lengths that the host remembers of a mask."""

import numpy as np
import torch

from simcse_kit.encoder.row_lengths import lengths_of, remember_lengths


def test_remembered_lengths_are_not_read_from_the_mask() -> None:
    mask = torch.ones(2, 3, dtype=torch.int64, device="meta")  # reading it raises
    assert lengths_of(remember_lengths(mask, np.array([2, 3]))) == [2, 3]


def test_writing_to_the_mask_makes_remembered_lengths_void() -> None:
    mask = remember_lengths(torch.tensor([[1, 1, 0], [1, 1, 1]]), np.array([2, 3]))
    mask[1, 2] = 0
    assert lengths_of(mask) == [2, 2]


def test_another_mask_made_from_a_mask_has_its_own_lengths() -> None:
    mask = remember_lengths(torch.tensor([[1, 1, 0], [1, 1, 1]]), np.array([2, 3]))
    assert lengths_of(mask[1:]) == [3]


def test_masks_of_inference_mode_are_remembered_too() -> None:
    with torch.inference_mode():
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert lengths_of(remember_lengths(mask, np.array([2, 3]))) == [2, 3]
