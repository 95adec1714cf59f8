"""Training and evaluation of SimCSE-style sentence encoders.

The public names are imported on first use, so ``import simcse_kit`` takes almost no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simcse_kit.utils.process import collection_paused

__version__ = "0.1.0"

_PUBLIC = {
    "ConfigError": "errors",
    "DataError": "errors",
    "Method": "methods.common.base",
    "ModelError": "errors",
    "Report": "evaluation.results",
    "RunConfig": "config",
    "SentenceEncoder": "encoder.encoder",
    "SimcseError": "errors",
    "TrainResult": "training.result",
    "compare": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "register_augmentation": "data.augment",
    "register_method": "methods",
    "register_task": "evaluation.tasks",
    "train": "training.api",
}

__all__ = [
    "ConfigError",
    "DataError",
    "Method",
    "ModelError",
    "Report",
    "RunConfig",
    "SentenceEncoder",
    "SimcseError",
    "TrainResult",
    "__version__",
    "compare",
    "evaluate",
    "register_augmentation",
    "register_method",
    "register_task",
    "train",
]

if TYPE_CHECKING:
    from simcse_kit.config import RunConfig
    from simcse_kit.data.augment import register_augmentation
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.errors import ConfigError, DataError, ModelError, SimcseError
    from simcse_kit.evaluation.evaluate import compare, evaluate
    from simcse_kit.evaluation.results import Report
    from simcse_kit.evaluation.tasks import register_task
    from simcse_kit.methods import register_method
    from simcse_kit.methods.common.base import Method
    from simcse_kit.training.api import train
    from simcse_kit.training.result import TrainResult


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'simcse_kit' has no attribute {name!r}")
    with collection_paused():
        value = getattr(import_module(f"simcse_kit.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
