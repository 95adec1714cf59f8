"""Encoding in forked processes, which have the memory of their parent but none of its threads.

Torch computes with a pool of OpenMP threads, and the child of a fork would wait for those threads
forever. The child therefore starts with one torch thread, like the workers of a DataLoader. The
tokenizers library has its own pool and is treated the same way, through its environment variable.
"""

from __future__ import annotations

import logging
import os
from threading import Lock, RLock

import torch

from simcse_kit.errors import ConfigError

__all__ = ["PREPARING", "TOKENIZING", "require_same_process", "require_usable", "torch_threads"]

logger = logging.getLogger(__name__)

TOKENIZING = Lock()
"""Held while a tokenizer works, since it is not thread-safe."""
PREPARING = RLock()
"""Held while an encoder chooses how it computes, which changes the model. A thread that needs both
locks acquires this one first."""

_TOKENIZERS = "TOKENIZERS_PARALLELISM"


class _Process:
    """The use of threads in this process."""

    computed = False  # with several torch threads
    inherited = False  # forked from a process that had computed so
    quieted = False  # the fork in progress has set the variable of the tokenizers library


_process = _Process()


def torch_threads() -> int:
    """Return the number of torch threads that this process can use.

    After a fork from a process that computed with several threads it is 1, even if the program has
    asked for more since, because those threads could not be started.
    """
    threads = torch.get_num_threads()
    if threads > 1 and _process.inherited:
        logger.warning(
            "this process was forked from one that had computed with several torch threads, so "
            "it can use only one thread instead of %d; start it with spawn or forkserver to use "
            "more",
            threads,
        )
        torch.set_num_threads(1)
        return 1
    _process.computed = _process.computed or threads > 1
    return threads


def require_usable(device: torch.device) -> None:
    """Refuse a GPU that was initialised before this process was forked.

    Raises:
        ConfigError: CUDA was initialised in the parent process.
    """
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise ConfigError(
            f"the encoder was put on {device} before this process was forked, and CUDA cannot be "
            "used in a forked process; start this process with spawn, or load the encoder with the "
            "device cpu"
        )


def require_same_process(process: int, what: str) -> None:
    """Refuse to continue work whose threads belong to another process.

    Args:
        process: Id of the process that started the work.
        what: Name of the work, as the subject of a sentence.

    Raises:
        ConfigError: This process is a different one.
    """
    if os.getpid() != process:
        raise ConfigError(
            f"{what} was started in process {process} and its threads do not exist in the forked "
            f"process {os.getpid()}; start it in the process that uses it"
        )


def _before() -> None:
    # A child that is forked while another thread holds a lock would wait for it forever.
    PREPARING.acquire()
    TOKENIZING.acquire()
    # Unless the variable is set, the library warns in the child and turns its threads off.
    _process.quieted = _TOKENIZERS not in os.environ
    if _process.quieted:
        os.environ[_TOKENIZERS] = "false"


def _in_parent() -> None:
    if _process.quieted:
        os.environ.pop(_TOKENIZERS, None)
    _release()


def _in_child() -> None:
    _process.inherited = _process.inherited or _process.computed
    os.environ[_TOKENIZERS] = "false"
    torch.set_num_threads(1)
    _release()


def _release() -> None:
    TOKENIZING.release()
    PREPARING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
