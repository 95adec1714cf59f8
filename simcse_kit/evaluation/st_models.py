"""Models that sentence-transformers opens and runs, for comparison."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import safe_open

from simcse_kit.encoder.backbone import quiet_transformers
from simcse_kit.encoder.folder.safe_io import check_finite
from simcse_kit.errors import MissingExtraError, ModelError, SimcseError
from simcse_kit.utils.progress import bar_kind

__all__ = ["SentenceTransformersModel"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_PROBE = "A sentence to test the model."


class SentenceTransformersModel:
    """A model of sentence-transformers, tested on one sentence when it is opened.

    Args:
        name: a folder, or a name on the Hugging Face Hub.
        device: name of a device that exists; by default sentence-transformers chooses one.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ModelError: the model does not exist, or it is damaged or incomplete.
    """

    pooling = "of the model"

    def __init__(self, name: str, device: str | None = None):
        self._name = name
        folder = Path(name)
        if folder.is_dir():
            _check_files(folder)
        self._model = self._guarded("open", lambda: _open(name, device))
        self._guarded("open", lambda: _check_parts(name, self._model))
        self.encode([_PROBE])

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts by their names."""
        return dict(getattr(self._model, "prompts", None) or {})

    @property
    def default_prompt_name(self) -> str | None:
        """Name of the prompt that is used by default."""
        return getattr(self._model, "default_prompt_name", None)

    def encode(
        self,
        sentences: list[str],
        *,
        progress: bool = False,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Compute the (n, d) float32 vectors of n sentences.

        Args:
            sentences: the sentences.
            progress: show a progress bar on a terminal or in a notebook.
            prompt: text in front of every sentence.
            prompt_name: name of one of :attr:`prompts`, instead.

        Raises:
            ModelError: the parts of the model do not fit together.
        """
        return self._vectors("encode", sentences, progress, prompt, prompt_name)

    def encode_query(self, sentences: list[str], *, progress: bool = False) -> np.ndarray:
        """Compute the vectors of queries as :meth:`encode`, with their prompt."""
        return self._vectors("encode_query", sentences, progress)

    def encode_document(self, sentences: list[str], *, progress: bool = False) -> np.ndarray:
        """Compute the vectors of documents as :meth:`encode`, with their prompt."""
        return self._vectors("encode_document", sentences, progress)

    def _vectors(
        self,
        method: str,
        sentences: list[str],
        progress: bool,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        shown = progress and bar_kind() is not None
        encode = getattr(self._model, method)

        def vectors() -> np.ndarray:
            found = encode(
                sentences, prompt=prompt, prompt_name=prompt_name, show_progress_bar=shown
            )
            return np.asarray(found, np.float32)

        return self._guarded("run", vectors)

    def _guarded(self, what: str, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except SimcseError:
            raise
        # A damaged folder can cause any exception of the library's parts.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or "no reason given"
            raise ModelError(
                f"sentence-transformers cannot {what} {self._name!r}: {type(error).__name__}: "
                f"{reason}"
            ) from error


def _open(name: str, device: str | None) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtraError(f"st:{name}", "sentence-transformers") from None
    with quiet_transformers(), _one_line_each("sentence_transformers"):
        return SentenceTransformer(name, device=device)


@contextmanager
def _one_line_each(package: str) -> Iterator[None]:
    """Hold back the log of a package; if nothing fails, log each message in one line."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(" ".join(record.getMessage().split()))

    kept: list[str] = []
    theirs = logging.getLogger(package)
    handlers, propagate = theirs.handlers, theirs.propagate
    theirs.handlers, theirs.propagate = [Keep(logging.WARNING)], False
    try:
        yield
    finally:
        theirs.handlers, theirs.propagate = handlers, propagate
    for line in dict.fromkeys(kept):
        logger.warning("%s", line)


def _check_files(folder: Path) -> None:
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.suffix in (".json", ".safetensors", ".txt") and not path.is_file():
            raise ModelError(f"{path} is not a regular file; copy it from the original model")


def _check_parts(name: str, model: Any) -> None:
    """Refuse weights that are random, NaN or infinite, and a tokenizer without words."""
    check_finite(model.named_parameters(), Path(name))
    transformer: Any = getattr(model[0], "model", None)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if not hasattr(transformer, "name_or_path"):
        return
    # TRAP: if the files are missing, transformers creates an empty tokenizer.
    words = set(tokenizer.get_vocab()) if hasattr(tokenizer, "get_vocab") else None
    if words is not None and words <= set(tokenizer.all_special_tokens):
        raise ModelError(f"{name} has no tokenizer; copy tokenizer.json from the original model")
    folder = Path(transformer.name_or_path)
    if folder.is_dir() and _may_lack_weights(transformer, folder):
        with quiet_transformers():
            _, info = type(transformer).from_pretrained(folder, output_loading_info=True)
        # The pooler is not used by pooling of token states.
        missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} weights of its architecture, such as {missing[0]}, "
                "which would be random; download the complete checkpoint"
            )


def _may_lack_weights(transformer: Any, folder: Path) -> bool:
    """Whether the files lack the name of a parameter; some files use other names."""
    stored: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            stored.update(weights.keys())
    prefix = f"{transformer.base_model_prefix}."
    names = {name for name, _ in transformer.named_parameters() if not name.startswith("pooler.")}
    return not names <= stored | {key.removeprefix(prefix) for key in stored}
