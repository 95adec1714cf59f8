"""Description of the hardware and software, without the name of the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# CPU flags that decide which kernels run.
_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16")
_FLAGS += ("avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "asimddp", "bf16", "i8mm", "sve")


def cpu_flags() -> list[str]:
    """Return the vector instructions of the CPU, if the system lists them."""
    known = _cpuinfo()
    flags = set(known.get("flags", known.get("features", "")).split())
    return [flag for flag in _FLAGS if flag in flags]


def environment(threads: int) -> dict[str, object]:
    """Return what a speed ratio may depend on."""
    known = _cpuinfo()
    cpu = " ".join(
        f"{label} {known[key]}".strip()
        for key, label in (("vendor_id", ""), ("cpu family", "family"), ("model", "model"))
        if key in known
    )
    return {
        "cpu": cpu or platform.machine(),
        "cpu_flags": cpu_flags(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": threads,
    }


def load_average() -> float:
    """Return the load of the last minute: on an idle machine about 0 before a task."""
    return round(os.getloadavg()[0], 2)


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}
