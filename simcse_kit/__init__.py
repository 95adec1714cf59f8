"""Training and evaluation of SimCSE-style sentence encoders.

The public names are imported on first use, so ``import simcse_kit`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simcse_kit.utils.process import collection_paused

__version__ = "0.1.0"

_PUBLIC = {
    "DataError": "errors",
    "ConfigError": "errors",
    "ModelError": "errors",
    "SimcseError": "errors",
    "SentenceEncoder": "encoder.encoder",
    "RunConfig": "config",
    "TrainResult": "training.run",
    "train": "training.run",
    "Report": "evaluation.results",
    "compare": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "register_task": "evaluation.tasks",
}

__all__ = [
    "ConfigError",
    "DataError",
    "ModelError",
    "Report",
    "RunConfig",
    "SentenceEncoder",
    "SimcseError",
    "TrainResult",
    "__version__",
    "compare",
    "evaluate",
    "register_task",
    "train",
]

if TYPE_CHECKING:
    from simcse_kit.config import RunConfig
    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.errors import ConfigError, DataError, ModelError, SimcseError
    from simcse_kit.evaluation.evaluate import compare, evaluate
    from simcse_kit.evaluation.results import Report
    from simcse_kit.evaluation.tasks import register_task
    from simcse_kit.training.run import TrainResult, train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'simcse_kit' has no attribute {name!r}")
    with collection_paused():
        value = getattr(import_module(f"simcse_kit.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
