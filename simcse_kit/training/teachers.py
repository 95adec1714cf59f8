"""Teachers: the models whose vectors a student learns."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.folder.recipe import read_recipe
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.encoder.stream import stream_vectors
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.embed import Encoder, embed, unit_rows
from simcse_kit.evaluation.models import check_model, open_encoder
from simcse_kit.utils.progress import progress_bar

__all__ = ["Teacher", "TextShard", "check_teacher"]

logger = logging.getLogger(__name__)

# Sentences of one call of a teacher that is not ours.
_CALL = 1024
_OTHER = "name a model that `simcse eval` opens"


@dataclass(frozen=True)
class TextShard:
    """The sentences of one shard, and its number from 0."""

    number: int
    texts: list[str]


class Teacher:
    """A model to learn from, opened when its vectors are needed.

    Args:
        name: name as for :func:`~simcse_kit.evaluation.models.open_encoder`.
        device: device of the model.
    """

    def __init__(self, name: str, device: torch.device):
        self.name = name
        self._device = device

    @cached_property
    def encoder(self) -> Encoder:
        """The opened model.

        Raises:
            ConfigError, ModelError: the model cannot be opened.
        """
        with _named(self.name):
            return open_encoder(self.name, device=str(self._device))

    @cached_property
    def identity(self) -> str:
        """Key of the model: of its files, or of its name and address if they are not at hand."""
        if check_model(self.name) is not None:
            return fingerprint(resolve_model(self.name))
        kind, _, name = self.name.partition(":")
        if kind == "st":
            try:
                return f"st:{fingerprint(resolve_model(name))}"
            except ModelError:
                return self.name
        return f"{self.name} at {os.environ.get('OPENAI_BASE_URL', '')}"

    def probe(self) -> int:
        """Return the number of dimensions, from the vector of one sentence."""
        return int(self._unit(["A sentence to test the teacher."]).shape[1])

    def vectors(
        self, shards: Iterator[TextShard], total: int
    ) -> Iterator[tuple[TextShard, NDArray[np.float32]]]:
        """Compute vectors of length 1; the model is opened only if there is a shard.

        Args:
            shards: the shards to compute.
            total: number of their sentences, for the progress bar.

        Yields:
            A shard and the (n, d) vectors of its next sentences.
        """
        first = next(shards, None)
        if first is None:
            return
        shards, encoder = chain([first], shards), self.encoder
        logger.info("teacher %s encodes %s sentences", self.name, f"{total:,}")
        if isinstance(encoder, SentenceEncoder):
            options = EncodeOptions(normalize=True, progress=True)
            groups = ((shard, shard.texts) for shard in shards)
            yield from stream_vectors(encoder, groups, options, total=total)
            return
        with progress_bar(total, desc=f"teacher {self.name}", unit=" texts") as bar:
            for shard in shards:
                for start in range(0, len(shard.texts), _CALL):
                    part = shard.texts[start : start + _CALL]
                    yield shard, self._unit(part)
                    bar.update(len(part))

    def _unit(self, texts: list[str]) -> NDArray[np.float32]:
        encoder = self.encoder
        with _named(self.name):
            return unit_rows(embed(encoder, texts)(texts))


def check_teacher(name: str) -> None:
    """Refuse a teacher of ours that cannot be found or whose recipe is not supported.

    Raises:
        ModelError: there is no such model, or it is not supported.
    """
    with _named(name):
        folder = check_model(name)
        if folder is not None:
            read_recipe(folder)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the teacher in errors of its model."""
    try:
        yield
    except (ConfigError, ModelError) as error:
        raise type(error)(f"teacher {name} cannot be used: {error}; {_OTHER}") from error
