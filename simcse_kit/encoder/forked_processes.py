"""Forked processes: they have the memory of their parent, but none of its threads.

Torch computes with a pool of OpenMP threads, which the child of a fork waits for without end. The
child therefore starts with one torch thread, as the workers of a DataLoader do. The tokenizers
library has a pool of its own and gets the same treatment through its environment variable.
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
"""Held while a tokenizer works: it serves one thread at a time."""
PREPARING = RLock()
"""Held while an encoder chooses how it computes, which changes the model. A thread that needs both
locks takes this one first."""

_TOKENIZERS = "TOKENIZERS_PARALLELISM"


class _Process:
    """What is known about the threads of this process.

    Attributes:
        computed: it has computed with several torch threads.
        inherited: it was forked from a process that had.
        quieted: the fork in progress has set the variable of the tokenizers library.
    """

    computed = False
    inherited = False
    quieted = False


_process = _Process()


def torch_threads() -> int:
    """Number of torch threads that this process can compute with.

    In a process forked from one that had computed with several threads it is 1, even where the
    program has asked for more since: those threads could not be started.
    """
    threads = torch.get_num_threads()
    if threads > 1 and _process.inherited:
        logger.warning(
            "this process was forked from one that had computed with several torch threads, so "
            "that it can use only one and not %d; start it with spawn or forkserver to use more",
            threads,
        )
        torch.set_num_threads(1)
        return 1
    _process.computed = _process.computed or threads > 1
    return threads


def require_usable(device: torch.device) -> None:
    """Refuse a GPU that was set up by the process from which this one was forked.

    Raises:
        ConfigError: it was.
    """
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise ConfigError(
            f"the encoder was put on {device} before this process was forked, and CUDA cannot be "
            "used in a forked process; load it in this process, or start it with spawn"
        )


def require_same_process(process: int, what: str) -> None:
    """Refuse to go on with work whose threads are in another process.

    Args:
        process: id of the process that started the work.
        what: name of the work, as the subject of a sentence.

    Raises:
        ConfigError: this process is another one.
    """
    if os.getpid() != process:
        raise ConfigError(
            f"{what} was started in process {process} and its threads do not exist in the forked "
            f"process {os.getpid()}; start it in the process that uses it"
        )


def _before() -> None:
    # A child forked while another thread has a lock would wait for it without end.
    PREPARING.acquire()
    TOKENIZING.acquire()
    # The library warns in the child, and turns its threads off, unless this is set.
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
