"""Text augmentation: one file a family, chains of them, and which view gets which chain."""

from simcse_kit.text.augment.chain import AUGMENTATIONS, Chain, preview
from simcse_kit.text.augment.views import AugmentedViews

__all__ = ["AUGMENTATIONS", "AugmentedViews", "Chain", "preview"]
