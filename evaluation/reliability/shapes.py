"""Memory in use (mallinfo2) after passes over the same sentences, and over ever new ones.

python evaluation/reliability/shapes.py TEXT MODEL --json evaluation/reliability/shapes.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
from itertools import islice
from pathlib import Path

import torch

from simcse_kit import SentenceEncoder
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.utils.allocator import give_back

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def megabytes_in_use() -> float:
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Memory
    return round(ask().uordblks / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("model")
    parser.add_argument("--passes", type=int, default=12)
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    encoder = SentenceEncoder.load(given.model)
    told: dict[str, list[float]] = {"same sentences": [], "new sentences": []}
    with given.text.open(encoding="utf-8") as lines:
        same = [line.strip() for line in islice(lines, given.sentences)]
        for what, used in told.items():
            for _ in range(given.passes):
                new = [line.strip() for line in islice(lines, given.sentences)]
                texts = same if what == "same sentences" else new
                vectors_of_rows(encoder, encoder.tokenize(texts)[0])
                give_back()
                used.append(megabytes_in_use())
            print(what, used)
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
