"""The encoder of a worker of a cluster, and the errors that a worker returns."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import ConfigError, MissingExtraError, SimcseError
from simcse_kit.utils.process import keep_few_kernels

__all__ = ["WorkerModel", "shown_error", "worker_name"]

_NO_MEMORY = ("out of memory", "can't allocate memory", "bad allocation", "std::bad_alloc")


@dataclass(frozen=True)
class WorkerModel:
    """An encoder that each worker loads.

    Attributes:
        name: Folder, or name, of the encoder.
        loading: Further arguments of ``SentenceEncoder.load``.
        fingerprint: Fingerprint of the model of the process that started the job.
        threads: Number of threads of a worker.
    """

    name: str
    loading: dict[str, Any]
    fingerprint: str
    threads: int

    def load(self) -> SentenceEncoder:
        """Load the encoder in a worker.

        Raises:
            ConfigError: The model has other files here, or an argument is not allowed.
            ModelError: The model cannot be opened.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        keep_few_kernels()
        torch.set_num_threads(self.threads)
        encoder = SentenceEncoder.load(self.name, **self.loading)
        assert encoder.source is not None
        if fingerprint(encoder.source) != self.fingerprint:
            raise ConfigError(
                f"the model {self.name} on {worker_name()} has other files than on the machine of "
                "this command; copy the same folder to all machines, or name a revision of the Hub"
            )
        return encoder


def worker_name() -> str:
    """Return the machine and the process id."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def shown_error(error: Exception, remedy: str) -> SimcseError:
    """Return an error that the user can fix; raise any other one again.

    Workers return such errors as results, because Ray would retry and log exceptions.

    Args:
        error: The error.
        remedy: Advice if memory was lacking.
    """
    if isinstance(error, MissingExtraError):  # which cannot be unpickled
        return SimcseError(str(error))
    if isinstance(error, SimcseError):
        return error
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return SimcseError(f"{worker_name()} ran out of memory; {remedy}")
    raise error
