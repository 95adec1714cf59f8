"""The encoder that training starts from, which is saved if no checkpoint is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from simcse_kit.config import ModelSection
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.fewer_layers import keep_layers
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.folder.load import DEFAULT_POOLING, is_sentence_encoder
from simcse_kit.encoder.folder.recipe import ADAPTER_FILE
from simcse_kit.encoder.folder.resolve import EMBEDDED, hub_name, is_local, resolve_model
from simcse_kit.encoder.lora import LoraOptions, add_lora
from simcse_kit.errors import ConfigError, ModelError
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
        encoder = load_start(self.model.model_copy(update={"pooling": own, "lora": None}))
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
        ConfigError: a layer of ``model.keep_layers`` does not exist, or ``model.lora`` does not fit
            the model.
        MissingExtraError: ``model.lora`` needs peft, which is not installed.
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
    if model.lora is not None:
        assert encoder.source is not None
        _check_base(encoder.source, model)
        base, revision = _base_name(model.name)
        options = LoraOptions(**model.lora.model_dump())
        add_lora(encoder, options, base=base, revision=revision)
    return encoder


def _check_base(folder: Path, model: ModelSection) -> None:
    """Refuse a start that a saved adapter could not find again."""
    remedy = "save that model first, and give its folder as --model"
    if model.keep_layers is not None:
        raise ConfigError(
            f"model.keep_layers = {model.keep_layers} and model.lora: an adapter is saved without "
            f"its model, and no folder has the shortened one; {remedy}"
        )
    if (folder / ADAPTER_FILE).exists():
        raise ConfigError(
            f"model.lora: {folder} is an adapter itself; merge it into its model with "
            "SentenceEncoder.load(...).save(...), and give the new folder as --model"
        )


def _base_name(name: str) -> tuple[str, str | None]:
    """Return the name and revision under which the saved adapter finds its model."""
    if name in EMBEDDED:
        return name, None
    return (str(Path(name).expanduser().resolve()), None) if is_local(name) else hub_name(name)
