"""Measure the exact search engine against a plain matrix product and a plain read of the vectors.

    OMP_NUM_THREADS=1 python evaluation/speed/search/run.py --json results.json

Random unit vectors are written as the files of an index; nothing is encoded. The variants run in
turn, round by round, in one process. Peak memory is that of processes which only open the index and
search, above that of a process which has imported the package. Use one thread: times are those of
the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

from simcse_kit.search import store  # noqa: E402
from simcse_kit.search.documents import Identified  # noqa: E402
from simcse_kit.search.index import SearchIndex  # noqa: E402
from simcse_kit.search.manifest import (  # noqa: E402
    EncoderRecord,
    EngineRecord,
    Manifest,
    Segment,
)
from simcse_kit.search.segments import VECTORS, new_segment, save_array  # noqa: E402

PART = 16_384
"""Rows of a file of vectors, as in an index that was encoded."""


def unit_vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_index(folder: Path, rows: int, dim: int, precision: str) -> None:
    """Write an index of random vectors."""
    folder.mkdir()
    documents = (Identified(str(n), f"text {n}", "{}") for n in range(rows))
    place, _ = new_segment(folder, documents, "speed")
    (place / VECTORS).mkdir()
    names = []
    for number, start in enumerate(range(0, rows, PART)):
        path = place / VECTORS / f"part-{number:06d}.npy"
        vectors = unit_vectors(min(PART, rows - start), dim, number)
        save_array(path, vectors.astype(np.float16) if precision == "fp16" else vectors)
        names.append(path.relative_to(folder).as_posix())
    manifest = Manifest(
        generation=1,
        encoder=EncoderRecord("none", "none", "mean", 1),
        dim=dim,
        precision=precision,
        engine=EngineRecord("exact"),
        count=rows,
        segments=(Segment(place.name, rows, tuple(names)),),
    )
    store.publish(folder, None, manifest)


def memory_of(folder: Path, queries: np.ndarray) -> tuple[int, int]:
    """Measure a new process: its memory after the imports, and its peak after a search."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = (
            "import sys, numpy as np\n"
            "from pathlib import Path\n"
            "from simcse_kit.search.index import SearchIndex\n"
            "def peak():\n"
            "    lines = Path('/proc/self/status').read_text().splitlines()\n"
            "    return next(int(l.split()[1]) for l in lines if l.startswith('VmHWM')) * 1024\n"
            "before = peak()\n"
            "SearchIndex.load(sys.argv[1]).search_vectors(np.load(sys.argv[2]), 10)\n"
            "print(before, peak())\n"
        )
        os.dup2(writing, 1)
        np.save(folder / ".queries.npy", queries)
        os.environ["PYTHONPATH"] = str(REPOSITORY)
        arguments = [sys.executable, "-c", code, str(folder), str(folder / ".queries.npy")]
        os.execv(sys.executable, arguments)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        before, after = map(int, pipe.read().split())
    return before, after


def references(folder: Path, queries: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Make plain operations on the vectors of an index, copied into one array."""
    import torch

    whole = np.concatenate([np.load(path) for path in sorted(folder.rglob("part-*.npy"))])
    tensor, left = torch.from_numpy(whole), torch.from_numpy(queries)
    return {
        "numpy.matmul": lambda: queries @ whole.T,
        "torch.mm": lambda: torch.mm(left, tensor.T),
        "numpy.matmul, 1 query": lambda: whole @ queries[0],
        "read (sum)": lambda: tensor.sum(),
    }


def seconds(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Measure the processor time of functions in turn; a first round does not count.

    On a shared machine, the wall-clock time is mostly that of waiting for a processor.
    """
    found: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            at = time.process_time()
            function()
            if number:
                found[name].append(round(time.process_time() - at, 4))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "int8"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count() or 1
    torch.set_num_threads(threads)
    queries = unit_vectors(given.queries, given.dim, 10**6)
    rows: list[dict[str, Any]] = []
    for precision in given.precisions:
        with TemporaryDirectory() as place:
            folder = Path(place, "index")
            write_index(folder, given.rows, given.dim, precision)
            before, after = memory_of(folder, queries)
            index = SearchIndex.load(folder)
            functions: dict[str, Callable[[], Any]] = {
                f"search, {given.queries} queries": lambda i=index: i.search_vectors(queries, 10),
                "search, 1 query": lambda i=index: i.search_vectors(queries[:1], 10),
            }
            if precision == "fp32":
                functions |= references(folder, queries)
            times = seconds(functions, given.rounds)
            vectors = given.rows * given.dim * {"fp32": 4, "fp16": 2, "int8": 1}[precision]
            rows.append(
                {
                    "precision": precision,
                    "vectors_bytes": vectors,
                    "imports_bytes": before,
                    "peak_bytes": after,
                    "peak_above_imports_over_vectors": round((after - before) / vectors, 3),
                    "seconds": times,
                    "median": {n: round(statistics.median(t), 4) for n, t in times.items()},
                }
            )
            print(json.dumps(rows[-1] | {"seconds": None}), flush=True)
    facts = {
        "rows": given.rows,
        "dim": given.dim,
        "queries": given.queries,
        "rounds": given.rounds,
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "machine": platform.machine(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "results": rows,
    }
    if given.json:
        given.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
