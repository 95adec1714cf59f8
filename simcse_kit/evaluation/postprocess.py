"""The post-processing lab: maps fitted on the embeddings of named text, tried and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from simcse_kit.data.readers import read_texts
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.metrics import whitening as maps
from simcse_kit.utils.spec import Call, bound, parse_list

__all__ = [
    "POSTPROCESSES",
    "Postprocessed",
    "as_dense",
    "fit",
    "make",
    "parse_postprocesses",
    "read_fit_texts",
    "tried",
]

POSTPROCESSES: dict[str, Callable[..., maps.Affine]] = {
    "standardize": maps.standardize,
    "whitening": maps.whitening,
    "abtt": maps.all_but_the_top,
}
"""What a post-processing goes by; see :mod:`simcse_kit.metrics.whitening`."""

_CHUNK = 10_000


def parse_postprocesses(text: str) -> dict[str, Call]:
    """Read ``"whitening(k=256),abtt(3),standardize"``: calls by how they are written.

    Raises:
        ConfigError: unknown name, or not of that form.
    """
    calls = parse_list(text, what="--post")
    for call in calls:
        if call.name not in POSTPROCESSES:
            known = ", ".join(POSTPROCESSES)
            raise ConfigError(f"--post: unknown post-processing {call.name!r}; known: {known}")
    return {_written(call): call for call in calls}


def _written(call: Call) -> str:
    arguments = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs)]
    return f"{call.name}({', '.join(arguments)})" if arguments else call.name


def fit(encoder: Encoder, texts: Sequence[str], *, progress: bool = False) -> maps.Moments:
    """What the maps are fitted from: the moments of the embeddings of ``texts``.

    Of our own encoders these are the vectors before they are scaled to length 1, for a kept stage
    stands there.

    Args:
        encoder: anything with ``encode``.
        texts: distinct sentences; memory beyond them is that of a chunk and of (d, d) float64.
        progress: show a bar where the encoder has one.
    """
    return maps.moments(_plain_vectors(encoder, texts, progress=progress))


def _plain_vectors(encoder: Encoder, texts: Sequence[str], *, progress: bool) -> Iterator[Tensor]:
    if isinstance(encoder, SentenceEncoder):
        total = len(texts)
        for part in encoder.encode_stream(texts, normalize=False, progress=progress, total=total):
            yield torch.from_numpy(part)
        return
    for start in range(0, len(texts), _CHUNK):
        yield torch.as_tensor(np.asarray(encoder.encode(list(texts[start : start + _CHUNK]))))


def make(call: Call, found: maps.Moments) -> maps.Affine:
    """The map of a call of :func:`parse_postprocesses`.

    Raises:
        ConfigError: its arguments do not fit the moments.
    """
    made: maps.Affine = bound(call, partial(POSTPROCESSES[call.name], found), what="--post")
    return made


def read_fit_texts(file: str) -> list[str]:
    """The distinct texts of a file of any kind that training reads.

    Raises:
        DataError: it cannot be read, or a row of it is bad.
    """
    _, rows = read_texts(file)
    return list(dict.fromkeys(text for row in rows for text in row))


def tried(
    encoder: Encoder, calls: Mapping[str, Call], texts: Sequence[str]
) -> Iterator[tuple[str, Postprocessed]]:
    """The encoder behind every map of ``calls``, fitted on ``texts``; nothing is encoded twice.

    Raises:
        ConfigError: too few texts, or a call that does not fit them.
    """
    found = fit(encoder, texts, progress=True)
    made = {name: make(call, found) for name, call in calls.items()}
    remembered: dict[tuple[str, ...], Tensor] = {}
    for name, affine in made.items():
        yield name, Postprocessed(encoder, affine, remembered)


class Postprocessed:
    """An encoder with a map behind it.

    Several maps of one encoder share what it has encoded: give them the same ``remembered``.

    Args:
        encoder: whose vectors to move.
        affine: the map.
        remembered: vectors by sentence list, filled and read.
    """

    def __init__(
        self,
        encoder: Encoder,
        affine: maps.Affine,
        remembered: dict[tuple[str, ...], Tensor] | None = None,
    ):
        self._encoder = encoder
        self._affine = affine
        self._remembered = {} if remembered is None else remembered
        self.pooling = getattr(encoder, "pooling", "unknown")

    def encode(self, sentences: list[str], *, progress: bool = False) -> np.ndarray:
        """The moved vectors, (n, k) float32, not scaled to length 1."""
        key = tuple(sentences)
        if key not in self._remembered:
            parts = list(_plain_vectors(self._encoder, sentences, progress=progress))
            self._remembered[key] = torch.cat(parts).float()
        return np.asarray(self._affine(self._remembered[key]).numpy())


def as_dense(affine: maps.Affine) -> Dense:
    """The map as a stage of an encoder, which sentence-transformers reads as well; float32."""
    out_features, in_features = affine.weight.shape
    stage = Dense(in_features, out_features, activation="identity")
    with torch.no_grad():
        stage.linear.weight.copy_(affine.weight)
        stage.linear.bias.copy_(affine.bias)
    return stage
