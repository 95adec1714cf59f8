"""Several processes that work on one thing: torch.distributed, started by torchrun or its kin.

The launcher tells each process its rank by environment variables. They are taken out of the
environment once the processes have met, so that no library shares out the work a second time.
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

_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
# Gradients go in pieces of this size: one copy of them, never two of all.
_BUCKET = 16_000_000
# Seconds for the threads of gloo to drop what they have summed.
_LEAVE = 0.1


def launched() -> tuple[int, int]:
    """Rank of this process and the number of processes, as the launcher tells; ``(0, 1)`` alone.

    Raises:
        ConfigError: the environment names the one without the other, or no numbers.
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
        raise ConfigError(f"the environment says {shown}; start several processes with torchrun")
    return rank, size


@dataclass(frozen=True)
class Processes:
    """This process among those that it works with.

    Args:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    @classmethod
    @contextmanager
    def met(cls, *, patience: timedelta) -> Iterator[Processes]:
        """Meet the others inside; alone without a launcher.

        On GPUs, each process sees one: that of its local rank. (Untested: no GPU was at hand.)

        Args:
            patience: how long one waits for the others where they are silent. A process that has
                died is noticed at once, by its connection.

        Raises:
            ConfigError: the environment is odd.
            SimcseError: the others cannot be reached.
        """
        rank, size = launched()
        if size == 1:
            yield ALONE
            return
        local = os.environ.get("LOCAL_RANK", "0")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        # Before torch looks at the GPUs.
        if visible == [""]:
            os.environ["CUDA_VISIBLE_DEVICES"] = local
        elif int(local) < len(visible):
            os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(local)]

        import torch
        from torch import distributed

        group = cls(rank, size)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with group._listening():
            distributed.init_process_group(backend, timeout=patience, rank=rank, world_size=size)
        kept = {name: os.environ.pop(name) for name in _TOLD if name in os.environ}
        last = None
        try:
            yield group
            # One that leaves while another still listens to it can take that one down.
            last = group.total(torch.zeros(1))
        finally:
            os.environ.update(kept)
            # TRAP: torch (seen with 2.7) waits for gloo's threads without letting go of the
            # interpreter, which such a thread needs if it is the last to drop a tensor: both would
            # wait for good. So the last tensor is kept, and threads late with others get a turn.
            time.sleep(_LEAVE)
            distributed.destroy_process_group()
            del last

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            from torch import distributed

            with self._listening():
                distributed.all_reduce(tensor)
        return tensor

    def agree(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all of them; where it fails, all end.

        Args:
            make: called by the first process alone; what it gives can be pickled.
        """
        if self.size == 1:
            return make()
        from torch import distributed

        told: list[T | None] = [make() if self.first else None]
        with self._listening():
            distributed.broadcast_object_list(told, src=0)
        return told[0]  # type: ignore[return-value]

    def meet(self) -> None:
        """Wait until all have come here."""
        if self.size > 1:
            import torch

            self.total(torch.zeros(1))

    def share_weights(self, module: nn.Module) -> None:
        """Parameters and buffers of the first process, on all of them."""
        if self.size > 1:
            from torch import distributed

            with self._listening():
                for tensor in (*module.parameters(), *module.buffers()):
                    distributed.broadcast(tensor.data, src=0)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """The mean gradient over all processes, in place.

        A parameter that no process has a gradient of keeps none, so that the optimizer passes over
        it as it does for a process alone.
        """
        if self.size == 1:
            return
        import torch

        there = torch.tensor([float(weight.grad is not None) for weight in parameters])
        moved = [w for w, n in zip(parameters, self.total(there).tolist(), strict=True) if n]
        for bucket in _buckets(moved):
            for weight in bucket:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            grads = [weight.grad for weight in bucket if weight.grad is not None]
            flat = self.total(torch.cat([grad.flatten() for grad in grads])).div_(self.size)
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
                f"cannot be reached, and its own message says why ({reason}); start all of them "
                "again, training with --resume"
            ) from error


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters in order, so many at a time, each lot of one kind of number."""
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
"""A process by itself."""
