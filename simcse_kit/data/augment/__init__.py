"""Text augmentation: one file a family, chains of them, and which view gets which chain."""

from simcse_kit.data.augment.chain import AUGMENTATIONS, Chain, preview
from simcse_kit.data.augment.views import AugmentedViews

__all__ = ["AUGMENTATIONS", "AugmentedViews", "Chain", "preview"]
