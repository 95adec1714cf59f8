"""Text augmentations, chains of them, and the chains of each view."""

from simcse_kit.data.augment.base import Augmentation, WordAugmentation
from simcse_kit.data.augment.chain import AUGMENTATIONS, Chain, preview, register_augmentation
from simcse_kit.data.augment.views import AugmentedViews

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "AugmentedViews",
    "Chain",
    "WordAugmentation",
    "preview",
    "register_augmentation",
]
