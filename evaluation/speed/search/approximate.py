"""Measure an HNSW graph of faiss against exact search: recall@10 and single queries per second.

    OMP_NUM_THREADS=1 python evaluation/speed/search/approximate.py --rows 1000000 --json FILE

The vectors are synthetic unit vectors in clusters of about 100, or those of ``--vectors FILE.npy``.
The queries are further vectors of the same kind, which are not in the index. Both searches answer
the same single queries in turn, in one process and with one thread. Times are processor time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

from simcse_kit.metrics.blocked_search import top_k_in_blocks  # noqa: E402
from simcse_kit.metrics.faiss_index import FaissIndex, plan_for  # noqa: E402
from simcse_kit.metrics.recall import ArrayVectors  # noqa: E402

SPREAD = 0.7
"""Standard deviation within a cluster, where that between the centers is 1."""


def clustered(rows: int, dim: int) -> np.ndarray:
    random = np.random.default_rng(0)
    centers = random.standard_normal((max(1, rows // 100), dim), dtype=np.float32)
    vectors = centers[random.integers(0, len(centers), rows)]
    for start in range(0, rows, 100_000):
        part = vectors[start : start + 100_000]
        part += SPREAD * random.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import faiss
    import torch

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    if given.vectors is None:
        whole = clustered(given.rows + given.queries, given.dim)
    else:
        whole = np.load(given.vectors).astype(np.float32)
        whole = np.random.default_rng(0).permutation(whole)
    vectors, queries = whole[: -given.queries], whole[-given.queries :]
    source = ArrayVectors(vectors)
    at = time.process_time()
    index = FaissIndex.build(source, plan_for(*vectors.shape))
    built = time.process_time() - at
    sampled = index.tune()
    exact_s, faiss_s, shares = [], [], []
    for query in queries:
        at = time.process_time()
        _, expected = top_k_in_blocks(query[None], source.blocks(), 10)
        middle = time.process_time()
        _, found = index.search(query[None], 10)
        exact_s.append(middle - at)
        faiss_s.append(time.process_time() - middle)
        shares.append(len({*expected[0].tolist()} & {*found[0].tolist()}) / 10)
    exact, approximate = statistics.median(exact_s), statistics.median(faiss_s)
    result: dict[str, Any] = {
        "rows": len(vectors),
        "dim": vectors.shape[1],
        "vectors": "clustered synthetic" if given.vectors is None else given.vectors.name,
        "efSearch": index.effort,
        "build_cpu_s": round(built, 1),
        "recall@10 on stored vectors": round(sampled, 4),
        "recall@10 on queries": round(statistics.mean(shares), 4),
        "exact_queries_per_s": round(1 / exact, 1),
        "faiss_queries_per_s": round(1 / approximate, 1),
        "ratio": round(exact / approximate, 1),
        "python": platform.python_version(),
        "faiss": faiss.__version__,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
