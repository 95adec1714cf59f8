"""Post-processing maps of embeddings: fitted on text, tried, and kept with an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from simcse_kit.data.readers import read_all_texts
from simcse_kit.data.remote import local_file
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.metrics import whitening as maps
from simcse_kit.utils.arrays import on_host
from simcse_kit.utils.spec import Call, instantiate, parse_list

__all__ = [
    "POSTPROCESSES",
    "Postprocessed",
    "Trials",
    "as_dense",
    "fit",
    "make",
    "parse_postprocesses",
    "read_trials",
    "try_maps",
]

POSTPROCESSES: dict[str, Callable[..., maps.Affine]] = {
    "standardize": maps.standardize,
    "whitening": maps.whitening,
    "abtt": maps.all_but_the_top,
}
"""The maps by name; see :mod:`simcse_kit.metrics.whitening`."""

_CHUNK = 10_000


@dataclass(frozen=True)
class Trials:
    """Maps to try, and the text to fit them on.

    Attributes:
        calls: the maps, by their spelling, such as ``"whitening(k=256)"``.
        texts: distinct sentences.
    """

    calls: dict[str, Call]
    texts: list[str]


def read_trials(post: str, fit: str) -> Trials:
    """Parse a list of maps, and read the text to fit them on.

    Args:
        post: such as ``"standardize,whitening(k=256)"``.
        fit: path or address of a file of any kind that training reads.

    Raises:
        ConfigError: a map is unknown, or the list has another form.
        DataError: the file cannot be read, or a row of it is bad.
    """
    calls = parse_postprocesses(post)
    return Trials(calls, list(dict.fromkeys(read_all_texts(local_file(fit)))))


def parse_postprocesses(text: str) -> dict[str, Call]:
    """Parse a list of maps, and return them by their spelling.

    Raises:
        ConfigError: a map is unknown, or the list has another form.

    Examples:
        >>> list(parse_postprocesses("whitening(k=256),abtt(3),standardize"))
        ['whitening(k=256)', 'abtt(3)', 'standardize']
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
    """Compute the moments of embeddings, which maps are fitted from.

    For a SentenceEncoder these are the vectors before normalization, because a map that is kept
    becomes a stage before it.

    Args:
        encoder: object with a method ``encode``.
        texts: distinct sentences. Memory in addition to them is one chunk of vectors and (d, d)
            float64.
        progress: show a progress bar if the encoder has one.
    """
    return maps.moments(_plain_vectors(encoder, texts, progress=progress))


def _plain_vectors(encoder: Encoder, texts: Sequence[str], *, progress: bool) -> Iterator[Tensor]:
    if isinstance(encoder, SentenceEncoder):
        total = len(texts)
        for part in encoder.encode_stream(texts, normalize=False, progress=progress, total=total):
            yield torch.from_numpy(part)
        return
    for start in range(0, len(texts), _CHUNK):
        yield torch.as_tensor(
            np.asarray(on_host(encoder.encode(list(texts[start : start + _CHUNK]))))
        )


def make(call: Call, found: maps.Moments) -> maps.Affine:
    """Make a map from its call and the moments of embeddings.

    Raises:
        ConfigError: the arguments of the call do not fit the moments.
    """
    made: maps.Affine = instantiate(call, partial(POSTPROCESSES[call.name], found), what="--post")
    return made


def try_maps(encoder: Encoder, trials: Trials) -> Iterator[tuple[str, Postprocessed]]:
    """Fit maps and yield the encoder with each of them; no sentence is encoded twice.

    Raises:
        ConfigError: there are too few texts, or a map does not fit them.
    """
    found = fit(encoder, trials.texts, progress=True)
    made = {name: make(call, found) for name, call in trials.calls.items()}
    remembered: dict[tuple[str, ...], Tensor] = {}
    for name, affine in made.items():
        yield name, Postprocessed(encoder, affine, remembered)


class Postprocessed:
    """An encoder followed by a map.

    Args:
        encoder: the encoder.
        affine: the map.
        remembered: cache of vectors by sentences; several maps of one encoder can share it.
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
        """Compute the mapped vectors, (n, k) float32, without normalization."""
        key = tuple(sentences)
        if key not in self._remembered:
            parts = list(_plain_vectors(self._encoder, sentences, progress=progress))
            self._remembered[key] = torch.cat(parts).float()
        return np.asarray(self._affine(self._remembered[key]).numpy())


def as_dense(affine: maps.Affine) -> Dense:
    """Convert a map to a float32 stage of an encoder, which sentence-transformers reads too."""
    out_features, in_features = affine.weight.shape
    stage = Dense(in_features, out_features, activation="identity")
    with torch.no_grad():
        stage.linear.weight.copy_(affine.weight)
        stage.linear.bias.copy_(affine.bias)
    return stage
