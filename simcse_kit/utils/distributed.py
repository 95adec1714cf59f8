"""Groups of processes with torch.distributed, started by torchrun or a similar launcher.

The launcher sets the rank in environment variables. They are removed while the group exists, so
that no library distributes the work a second time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from simcse_kit.errors import ConfigError, SimcseError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ALONE", "Processes", "launched"]

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
# Number of gradient values per all-reduce, so that only one piece is copied at a time.
_BUCKET = 16_000_000
# Seconds for gloo's threads to release their tensors.
_LEAVE = 0.1


def launched() -> tuple[int, int]:
    """Return the rank and the number of processes from the environment; ``(0, 1)`` if there is one.

    Raises:
        ConfigError: a variable is missing or is not a number.
    """
    names = ("RANK", "WORLD_SIZE")
    given = [os.environ.get(name) for name in names]
    if given[1] in (None, "1"):
        return 0, 1
    try:
        rank, size = (int(value or "") for value in given)
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        shown = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        raise ConfigError(f"the environment has {shown}; start several processes with torchrun")
    return rank, size


@dataclass(frozen=True)
class Processes:
    """The group of processes of a run, as seen by one of them.

    Args:
        rank: rank of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process has rank 0, which writes files and logs."""
        return self.rank == 0

    @classmethod
    @contextmanager
    def joined(cls, *, patience: timedelta) -> Iterator[Processes]:
        """Join the process group inside the block; without a launcher, give a group of one.

        Each process sees one GPU, the one of its local rank, and NCCL sums the tensors on it. If
        there are fewer GPUs than processes, they share the GPUs, which NCCL refuses, and gloo sums
        the tensors through the host. (Several GPUs are not tested.)

        A group that exists already, such as that of Ray Train, is used and kept.

        Args:
            patience: timeout of collective operations. A process that ended is noticed at once.

        Raises:
            ConfigError: the launcher's variables are incomplete.
            SimcseError: the other processes cannot be reached.
        """
        rank, size = launched()
        if size == 1:
            yield ALONE
            return
        backend = "cpu:gloo,cuda:nccl" if _take_gpu(rank, size) else "gloo"

        import torch
        from torch import distributed

        group = cls(rank, size)
        given = distributed.is_initialized()
        if not given:
            with group._listening():
                distributed.init_process_group(
                    backend, timeout=patience, rank=rank, world_size=size
                )
        kept = {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
        last = None
        try:
            yield group
            # A process that leaves early can make one that still waits for it fail.
            last = group.all_reduce_sum(torch.zeros(1))
        finally:
            os.environ.update(kept)
            # TRAP: torch (seen with 2.7) waits for gloo's threads while it holds the GIL, which
            # a thread needs to release a tensor: a deadlock. So the last tensor is kept here, and
            # the threads get time to release the others.
            time.sleep(_LEAVE)
            if not given:
                distributed.destroy_process_group()
            del last

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            from torch import distributed

            with self._listening():
                distributed.all_reduce(tensor)
        return tensor

    def from_first(self, make: Callable[[], T]) -> T:
        """Return on every process the result of a function that only the first one calls.

        Args:
            make: the function; its result must be picklable. If it raises, all processes end.
        """
        if self.size == 1:
            return make()
        from torch import distributed

        result: list[T | None] = [make() if self.first else None]
        with self._listening():
            distributed.broadcast_object_list(result, src=0)
        return result[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        if self.size > 1:
            import torch

            self.all_reduce_sum(torch.zeros(1))

    def share_weights(self, module: nn.Module) -> None:
        """Copy parameters and buffers of the first process to all processes."""
        if self.size > 1:
            from torch import distributed

            with self._listening():
                for tensor in (*module.parameters(), *module.buffers()):
                    distributed.broadcast(tensor.data, src=0)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Average the gradients over all processes, in place.

        A parameter without a gradient on any process keeps none, so that the optimizer skips it as
        in a run with one process.
        """
        if self.size == 1:
            return
        import torch

        there = torch.tensor([float(weight.grad is not None) for weight in parameters])
        moved = [
            w for w, n in zip(parameters, self.all_reduce_sum(there).tolist(), strict=True) if n
        ]
        for bucket in _buckets(moved):
            for weight in bucket:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            grads = [weight.grad for weight in bucket if weight.grad is not None]
            flat = self.all_reduce_sum(torch.cat([grad.flatten() for grad in grads])).div_(
                self.size
            )
            sizes = [grad.numel() for grad in grads]
            for grad, piece in zip(grads, torch.split(flat, sizes), strict=True):
                grad.copy_(piece.view_as(grad))

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise SimcseError(
                f"process {self.rank} of {self.size} has lost the others: one of them has ended or "
                f"cannot be reached, see its own message ({reason}); start all of them again, and "
                "add --resume to train"
            ) from error


def _take_gpu(rank: int, size: int) -> bool:
    """Let this process see one GPU, the one of its local rank.

    Returns:
        Whether each process of this machine has a GPU of its own.
    """
    import torch

    # With NVIDIA's management library, torch counts them without initializing CUDA.
    count = torch.cuda.device_count()
    if not count:
        return False
    local = int(os.environ.get("LOCAL_RANK", rank))
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = given.split(",") if given else [str(number) for number in range(count)]
    # Must be set before torch initializes CUDA.
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[local % count]
    return int(os.environ.get("LOCAL_WORLD_SIZE", size)) <= count


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split parameters into buckets of limited size and of one dtype each, in their order."""
    bucket: list[Tensor] = []
    count = 0
    for weight in parameters:
        if bucket and (weight.dtype != bucket[0].dtype or count + weight.numel() > _BUCKET):
            yield bucket
            bucket, count = [], 0
        bucket.append(weight)
        count += weight.numel()
    if bucket:
        yield bucket


ALONE = Processes()
"""The group of a single process."""
