"""Training methods: one paper, one file, one line in the table of this module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simcse_kit.registry import Registry

if TYPE_CHECKING:
    from simcse_kit.methods.common.base import Method
    from simcse_kit.methods.common.config import MethodConfig

__all__ = ["METHODS", "build_config", "find_method", "register_method"]

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
        "graded": "simcse_kit.methods.graded:Graded",
        "distill": "simcse_kit.methods.distill:Distill",
        "margin_contrastive": "simcse_kit.methods.margin_contrastive:MarginContrastive",
    },
    group="simcse_kit.methods",
    base="simcse_kit.methods.common.base:Method",
)


def register_method(name: str, method: str | type[Method]) -> None:
    """Make a training method of your own available under a name.

    The name can then be used in ``train``, in ``--method`` and in a configuration, for as long as
    this Python process runs. A package registers a method for every process by an entry point of
    the group ``simcse_kit.methods``. Without registration a method is available as
    ``package.module:Class``.

    Args:
        name: the new name.
        method: the class, or ``"package.module:Class"``, which is imported on first use.

    Raises:
        ConfigError: the name is taken, or is not a plain name.

    Examples:
        >>> from simcse_kit.methods.simcse import SimCSE
        >>> class Halved(SimCSE):
        ...     def loss(self, embeddings, batch):
        ...         output = super().loss(embeddings, batch)
        ...         output.loss = output.loss / 2
        ...         return output
        >>> register_method("halved", Halved)
        >>> find_method("halved").name
        'Halved'
    """
    METHODS.register(name, method)


def find_method(name: str) -> type[Method]:
    """Return the class of a method.

    Args:
        name: a name in :data:`METHODS`, or ``package.module:Class``.

    Raises:
        ConfigError: the name is unknown, or the class cannot be imported or is not a method.
    """
    method: type[Method] = METHODS.resolve(name)
    return method


def build_config(name: str, options: Mapping[str, Any]) -> MethodConfig:
    """Make the options of a method.

    Args:
        name: a name in :data:`METHODS`, or ``package.module:Class``.
        options: option -> value; options that are not given take the default of the paper.

    Raises:
        ConfigError: an unknown method, an unknown key, or a value that is not allowed.

    Examples:
        >>> build_config("simcse", {"temperature": 0.1}).temperature
        0.1
    """
    method = find_method(name)
    from simcse_kit.methods.common.config import parse_config

    return parse_config(method.Config, options)
