"""Settings of an index, chosen when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry
from simcse_kit.search.manifest import EngineRecord
from simcse_kit.utils.prompt_choice import DEFAULT_PROMPTS, PromptChoice

__all__ = ["DATABASE", "ENGINES", "PRECISIONS", "IndexSettings"]

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "float32"}
"""Number formats of the searched vectors, each with the format of the stored vectors.

int8 vectors are stored next to float32 vectors, which rescore the candidates.
"""

ENGINES = Registry(
    "engine",
    {
        "exact": "simcse_kit.search.exact:ExactEngine",
        "faiss": "simcse_kit.search.faiss_engine:FaissEngine",
        "milvus": "simcse_kit.search.milvus_engine:MilvusEngine",
    },
)
"""Search engines by name: subclasses of :class:`~simcse_kit.search.engine.Engine`."""

DATABASE = "milvus.db"
"""Database of the engine ``milvus`` in the folder of an index, if it has no server."""


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built.

    Attributes:
        precision: Number format of the searched vectors, one of :data:`PRECISIONS`.
        engine: Name of the search engine.
        uri: Address of a Milvus server, such as ``http://localhost:19530``; None for a file in the
            folder of the index. For the engine ``milvus``.
        prompts: Prompts of queries and documents, instead of those that the encoder chooses.
        model: Name from which the encoder is loaded again; None for its folder.
        overwrite: Whether an existing index is replaced, when the new one is complete.
        progress: Whether progress bars are shown on a terminal.

    Raises:
        ConfigError: The precision or the engine is unknown, or they do not go together.
        MissingExtraError: The package of the engine is not installed.
    """

    precision: str = "fp32"
    engine: str = "exact"
    uri: str | None = None
    prompts: PromptChoice = DEFAULT_PROMPTS
    model: str | None = None
    overwrite: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"the precision of an index is {self.precision!r}; allowed: {', '.join(PRECISIONS)}"
            )
        kind = ENGINES.resolve(self.engine)
        kind.require()
        name = ENGINES.canonical(self.engine)
        if self.precision == "int8" and name != "exact":
            raise ConfigError(
                f"the precision int8 is for the engine exact, not {name}; use fp32 or fp16"
            )
        if self.uri is not None:
            check_uri(self.uri, name)

    def engine_record(self) -> EngineRecord:
        """Describe the engine before it is built."""
        name = ENGINES.canonical(self.engine)
        return EngineRecord(name, {"uri": self.uri} if name == "milvus" else {})


def check_uri(uri: str, engine: str) -> None:
    """Check the address of a Milvus server.

    Args:
        uri: The address.
        engine: Name of the engine.

    Raises:
        ConfigError: The engine is not Milvus, or the address is not one of HTTP.
    """
    if engine != "milvus":
        raise ConfigError(
            f"--uri is for the engine milvus, not {engine}; add --engine milvus or leave out --uri"
        )
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"--uri {uri} is not the address of a server; give one such as http://localhost:19530"
        )
    if parts.password is not None:
        raise ConfigError(
            "--uri contains a password, which the index would store; set the environment variable "
            "MILVUS_TOKEN to USER:PASSWORD"
        )
