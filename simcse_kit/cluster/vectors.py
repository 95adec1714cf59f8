"""Vectors of sentences from the workers of a cluster."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.cluster.pool import RayRun, pooled
from simcse_kit.cluster.tasks import failures
from simcse_kit.cluster.worker_model import WorkerModel, shown_error
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import ENCODE_BAR
from simcse_kit.encoder.prompts import chosen_prompt, role_prompt
from simcse_kit.errors import SimcseError
from simcse_kit.utils.progress import progress_bar

__all__ = ["ClusterEncoder"]

_PIECE = 8192  # sentences
_MORE_MEMORY = "nothing was written; use machines with more memory"


@dataclass(frozen=True)
class _Work:
    """How all workers encode.

    Attributes:
        model: The encoder.
        prompt: Text in front of the sentences.
        normalize: Whether vectors are scaled to unit length; None for the choice of the encoder.
    """

    model: WorkerModel
    prompt: str
    normalize: bool | None


class ClusterEncoder:
    """Encoder of many sentences on the workers of a connected cluster.

    Up to one piece of sentences is encoded in this process, since workers take seconds to start.
    The vectors equal those of the encoder within 1e-6.

    Args:
        encoder: The encoder.
        run: Workers, and how they load the encoder.
        piece: Number of sentences that a worker encodes at a time.
    """

    def __init__(self, encoder: SentenceEncoder, run: RayRun, *, piece: int = _PIECE):
        self._encoder = encoder
        self._run = run
        self._piece = piece
        self.prompt = encoder.prompt
        self.prompts = encoder.prompts

    def encode(
        self,
        sentences: list[str],
        /,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Encode sentences into an ``(n, d)`` array; see ``SentenceEncoder.encode``.

        Raises:
            SimcseError: A worker or the cluster failed.
        """
        text = chosen_prompt(self._encoder, prompt, prompt_name)
        rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
        distinct = list(rows)
        if len(distinct) <= self._piece:
            vectors: NDArray[np.float32] = self._encoder.encode(
                distinct, prompt=text, normalize=normalize, progress=progress
            )
        else:
            work = _Work(self._run.on_workers(self._encoder), text, normalize)
            vectors = self._encoded(distinct, work, progress)
        return vectors[[rows[sentence] for sentence in sentences]]

    def encode_query(self, sentences: list[str], /, **options: Any) -> NDArray[np.float32]:
        """Encode queries: :meth:`encode` with the prompt named ``query``."""
        return self.encode(sentences, prompt=role_prompt(self._encoder, "query"), **options)

    def encode_document(self, sentences: list[str], /, **options: Any) -> NDArray[np.float32]:
        """Encode documents: :meth:`encode` with the prompt named ``document``."""
        return self.encode(sentences, prompt=role_prompt(self._encoder, "document"), **options)

    def _encoded(self, sentences: list[str], work: _Work, progress: bool) -> NDArray[np.float32]:
        size = self._piece
        items = [
            (start, sentences[start : start + size]) for start in range(0, len(sentences), size)
        ]
        vectors = np.empty((len(sentences), self._encoder.embedding_dim), np.float32)
        with (
            failures("encoding"),
            progress_bar(len(sentences), shown=progress, smoothing=0, **ENCODE_BAR) as bar,
            # Closing ends the workers, also after an error.
            closing(pooled(_Worker, work, items, self._run.pool)) as results,
        ):
            for result in results:
                if isinstance(result, SimcseError):
                    raise result
                start, found = result
                vectors[start : start + len(found)] = found
                bar.update(len(found))
        return vectors


class _Worker:
    """Function of a batch of one piece, for :func:`~simcse_kit.cluster.pool.pooled`."""

    def __init__(self, work: _Work):
        self._work = work
        self._encoder: SentenceEncoder | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        start, sentences = pickle.loads(batch["item"][0])
        result: Any
        try:
            if self._encoder is None:
                self._encoder = self._work.model.load()
            options: dict[str, Any] = {"normalize": self._work.normalize, "progress": False}
            result = start, self._encoder.encode(sentences, prompt=self._work.prompt, **options)
        except Exception as error:
            result = shown_error(error, _MORE_MEMORY)
        return {"result": [pickle.dumps(result)]}
