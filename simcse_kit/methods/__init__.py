"""The table of training methods: one paper, one file, one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simcse_kit.registry import Registry

if TYPE_CHECKING:
    from simcse_kit.methods.common.config import MethodConfig

__all__ = ["METHODS", "build_config"]

METHODS = Registry(
    "method",
    {
        "simcse": "simcse_kit.methods.simcse:SimCSE",
        "simclr": "simcse_kit.methods.simclr:SimCLR",
        "moco": "simcse_kit.methods.moco:MoCo",
        "byol": "simcse_kit.methods.byol:BYOL",
        "simsiam": "simcse_kit.methods.simsiam:SimSiam",
        "dual_encoder": "simcse_kit.methods.dual_encoder:DualEncoder",
        "esimcse": "simcse_kit.methods.esimcse:ESimCSE",
        "promptbert": "simcse_kit.methods.promptbert:PromptBERT",
        "diffcse": "simcse_kit.methods.diffcse:DiffCSE",
        "consert": "simcse_kit.methods.consert:ConSERT",
        "cpc": "simcse_kit.methods.cpc:CPC",
        "prototypical": "simcse_kit.methods.prototypical:PrototypicalContrast",
        "swav": "simcse_kit.methods.swav:SwAV",
        "margin-contrastive": "simcse_kit.methods.margin_contrastive:MarginContrastive",
    },
)


def build_config(name: str, options: Mapping[str, Any]) -> MethodConfig:
    """The typed options of a method.

    Args:
        name: a key of :data:`METHODS`.
        options: option -> value; options left out take the paper's default.

    Raises:
        ConfigError: an unknown method, an unknown key, or a value that is not allowed.
    """
    method = METHODS.resolve(name)
    from simcse_kit.methods.common.config import parse_config

    return parse_config(method, options)
