"""Settings of an index, chosen when it is built."""

from __future__ import annotations

from dataclasses import dataclass

from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry
from simcse_kit.utils.prompt_choice import DEFAULT_PROMPTS, PromptChoice

__all__ = ["ENGINES", "PRECISIONS", "IndexSettings"]

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "float32"}
"""Number formats of the searched vectors, each with the format of the stored vectors.

int8 vectors are stored next to float32 vectors, which rescore the candidates.
"""

ENGINES = Registry("engine", {"exact": "simcse_kit.search.exact:ExactEngine"})
"""Search engines by name: subclasses of :class:`~simcse_kit.search.engine.Engine`."""


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built.

    Attributes:
        precision: Number format of the searched vectors, one of :data:`PRECISIONS`.
        engine: Name of the search engine.
        prompts: Prompts of queries and documents, instead of those that the encoder chooses.
        model: Name from which the encoder is loaded again; None for its folder.
        overwrite: Whether an existing index is replaced, when the new one is complete.
        progress: Whether progress bars are shown on a terminal.

    Raises:
        ConfigError: The precision or the engine is unknown.
    """

    precision: str = "fp32"
    engine: str = "exact"
    prompts: PromptChoice = DEFAULT_PROMPTS
    model: str | None = None
    overwrite: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"the precision of an index is {self.precision!r}; allowed: {', '.join(PRECISIONS)}"
            )
        ENGINES.resolve(self.engine)
