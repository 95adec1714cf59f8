"""What a profile of one round says: kernel launches, waits of the host, busy time of the GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")


def started(*, cuda: bool) -> profile:
    """Start a profile of the host, and of the GPU if there is one."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    found = profile(activities=activities)
    found.start()
    return found


def summary(found: profile) -> dict[str, Any]:
    """Count what happened between the start and the stop.

    ``waits`` contains the one at the end of the round, which belongs to the measurement.
    """
    events = found.events() or []
    # Annotations, such as that of an optimizer step, and waits span times without a kernel.
    on_device = [
        one
        for one in events
        if one.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(one, "is_user_annotation", False)
        and not one.name.endswith(" Sync")
    ]
    spans = [(one.time_range.start, one.time_range.end) for one in on_device]
    slowest: dict[str, float] = {}
    for one in on_device:
        slowest[one.name] = slowest.get(one.name, 0.0) + one.time_range.elapsed_us() / 1e6
    top = sorted(slowest.items(), key=lambda item: -item[1])[:12]
    return {
        "operators": sum(one.name.startswith("aten::") for one in events),
        "launches": sum(one.name.startswith(LAUNCHES) for one in events),
        "waits": sum(one.name in WAITS for one in events),
        "copies_to_host": sum("DtoH" in one.name for one in on_device),
        "copies_to_device": sum("HtoD" in one.name for one in on_device),
        "busy_seconds": covered(spans) / 1e6,
        "slowest_kernels": {name[:80]: round(seconds, 6) for name, seconds in top},
    }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
