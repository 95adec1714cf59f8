"""Processes that meet, sum once and part, again and again on a busy machine: whether any hang.

python evaluation/reliability/meetings.py --json evaluation/reliability/meetings.json
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

HANGS = 60.0


def meet(rank: int, ports: list[int]) -> None:
    """Meet the other one at each port; a meeting that does not end ends the process."""
    import torch

    from simcse_kit.utils.distributed import Processes

    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    for port in ports:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        os.environ |= {"MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
        with Processes.met(patience=timedelta(minutes=1)) as processes:
            processes.total(torch.ones(1000))


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--meetings", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs="+", type=int, metavar="RANK PORTS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        meet(given.one[0], given.one[1:])
        return
    import torch

    began = time.monotonic()
    ports = free_ports(given.pairs * given.meetings)
    running = [
        [
            subprocess.Popen(
                [
                    *(sys.executable, __file__, "--one", str(rank)),
                    *map(str, ports[pair :: given.pairs]),
                ],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stderr=subprocess.DEVNULL,
            )
            for rank in range(2)
        ]
        for pair in range(given.pairs)
    ]
    codes = [[process.wait() for process in pair] for pair in running]
    told = {
        "torch": torch.__version__,
        "meetings": given.pairs * given.meetings,
        "pairs": given.pairs,
        "pairs_that_hung": sum(any(pair) for pair in codes),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(told))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
