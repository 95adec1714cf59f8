"""Peak memory and time of the geometry of many embeddings.

    python evaluation/geometry/run.py 25000 50000 100000 > evaluation/geometry/results.json

Vectors of 384 dimensions are drawn from a normal distribution; each count has a process of its own.
"""

from __future__ import annotations

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


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        runs = [
            json.loads(subprocess.check_output([sys.executable, __file__, count]))
            for count in sys.argv[1:]
        ]
        print(json.dumps(runs, indent=2))
