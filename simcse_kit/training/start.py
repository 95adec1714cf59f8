"""The encoder that training starts from, which is saved if no checkpoint is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from simcse_kit.config import ModelSection
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.fewer_layers import keep_layers
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.folder.load import DEFAULT_POOLING, is_sentence_encoder
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method

__all__ = ["Start", "load_start"]


@dataclass(frozen=True)
class Start:
    """The model that training starts from, with the vectors that it has without training.

    Attributes:
        model: the model that the configuration names.
        fingerprint: fingerprint of its files.
        altered: whether the run gives it another pooling, template or head, so that the vectors
            before the first step are not those of the model.
    """

    model: ModelSection
    fingerprint: str
    altered: bool = False

    def again(self) -> SentenceEncoder:
        """Load the model on the CPU, with its own pooling instead of that of the run.

        Raises:
            ModelError: the files of the model have changed since the run began.
        """
        folder = resolve_model(self.model.name, trust_remote_code=self.model.trust_remote_code)
        own = None if is_sentence_encoder(folder) else DEFAULT_POOLING
        encoder = load_start(self.model.model_copy(update={"pooling": own}))
        if encoder.source is None or fingerprint(encoder.source) != self.fingerprint:
            raise ModelError(
                f"training did not help, and the start model {self.model.name!r} has changed since "
                "the run began, so it cannot be saved; restore its files, then the same command "
                "with --resume saves it"
            )
        return encoder

    def on(self, device: torch.device) -> Callable[[Method], SentenceEncoder]:
        """Return a function that loads the encoder on a device, without drawing random numbers."""

        def load(_: Method) -> SentenceEncoder:
            with torch.random.fork_rng(devices=[]):
                return self.again().to(device)

        return load


def load_start(model: ModelSection) -> SentenceEncoder:
    """Load the encoder to train, on the CPU, where new weights are drawn.

    Raises:
        ConfigError: a layer of ``model.keep_layers`` does not exist.
        ModelError: the model cannot be opened, or its layers cannot be dropped.
    """
    encoder = SentenceEncoder.load(
        model.name,
        device="cpu",
        pooling=model.pooling,
        trust_remote_code=model.trust_remote_code,
    )
    if model.keep_layers is not None:
        keep_layers(encoder, model.keep_layers)
    return encoder
