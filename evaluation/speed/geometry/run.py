"""Measure peak memory and time of the geometry of many embeddings.

    cd evaluation/speed/geometry && python run.py 25000 50000 100000 > results.json

Vectors of 384 dimensions are drawn from a normal distribution. Each count runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from simcse_kit.evaluation.geometry import geometry
from simcse_kit.evaluation.pair_set import PairSet

DIM = 384


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure(count: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    names = [str(number) for number in range(count)]
    half = count // 2
    pairs = PairSet("drawn", names[:half], names[half:], rng.uniform(0, 5, half))
    before, start = peak(), time.perf_counter()
    geometry(lambda texts: vectors[[int(text) for text in texts]], pairs, "drawn")
    return {
        "sentences": count,
        "vectors_mb": round(vectors.nbytes / 1e6),
        "peak_before_mb": round(before),
        "peak_mb": round(peak()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="+", help="numbers of vectors")
    counts = parser.parse_args().counts
    if len(counts) == 1:
        print(json.dumps(measure(counts[0])))
        return
    commands = [[sys.executable, __file__, str(count)] for count in counts]
    print(
        json.dumps([json.loads(subprocess.check_output(command)) for command in commands], indent=2)
    )


if __name__ == "__main__":
    main()
