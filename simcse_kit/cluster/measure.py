"""Short measurements of the rates of this machine, for a plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from simcse_kit.cluster.rates import Rate
from simcse_kit.data.lines import read_lines
from simcse_kit.data.prepare.dedupe import Level, dedupe
from simcse_kit.data.remote import local_file

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["LINES", "first_lines", "mean_bytes", "measure"]

LINES = 200_000
"""Number of lines that are measured, unless they take longer than the time allows."""

_TOKENIZED = 20_000

_FIRST = 256
_SOURCE = "measured now on this machine"


def first_lines(file: str | Path) -> list[str]:
    """Read the first :data:`LINES` lines of a text file.

    Raises:
        DataError: The file cannot be read, or a line is bad.
    """
    return list(islice(read_lines(local_file(file)), LINES))


def measure(
    encoder: SentenceEncoder, lines: Sequence[str], *, device: str, seconds: float
) -> list[Rate]:
    """Measure the rates of tokenizing, encoding and deduplication.

    A rate of the CPU is that of one core: it is computed from the processor time of all threads,
    which other programs do not change much.

    Args:
        encoder: The encoder, on the device.
        lines: Sentences.
        device: Name of the device in the plan; ``cpu``, or that of the GPU of this machine.
        seconds: Approximate time of encoding, and most time of deduplication.
    """
    texts = list(lines[:_TOKENIZED])

    def tokenize(some: list[str]) -> None:
        encoder.tokenize(some)

    def encode(some: list[str]) -> None:
        encoder.encode(some, progress=False)

    size = mean_bytes(lines)
    tokens = _mean_tokens(encoder, texts)
    per_second = len(texts) / _seconds(tokenize, texts)
    rates = [Rate("tokenize", "cpu", per_second, _SOURCE, tokens=tokens)]
    clock = time.process_time if device == "cpu" else time.perf_counter
    first = texts[:_FIRST]
    encode(first[:8])  # loads what the first pass needs
    count = max(_FIRST, int(len(first) / _seconds(encode, first, clock) * seconds))
    some = texts[:count]
    per_second = len(some) / _seconds(encode, some, clock)
    tokens = _mean_tokens(encoder, some)
    rates.append(Rate("encode", device, per_second, _SOURCE, tokens=tokens))
    levels: dict[str, Level] = {"dedupe": "normal", "dedupe-near": "near"}
    for step, level in levels.items():
        per_second = _dedupe_rate(lines, level, seconds)
        rates.append(Rate(step, "cpu", per_second, _SOURCE, bytes=size))
    return rates


def _seconds(
    work: Callable[[list[str]], None],
    texts: list[str],
    clock: Callable[[], float] = time.process_time,
) -> float:
    began = clock()
    work(texts)
    return max(clock() - began, 1e-9)


def _dedupe_rate(lines: Sequence[str], level: Level, seconds: float) -> float:
    """Return lines per second for as many lines as the time allows; more lines are slower each."""
    count = min(_TOKENIZED, len(lines))
    while True:
        spent = _dedupe_seconds(lines[:count], level)
        if count == len(lines) or 5 * spent > seconds:
            return count / spent
        count = min(4 * count, len(lines))


def _dedupe_seconds(texts: Sequence[str], level: Level) -> float:
    with TemporaryDirectory() as folder:
        file = Path(folder, "in.txt")
        file.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
        began = time.process_time()
        dedupe(file, Path(folder, "out.txt"), level=level)
        return time.process_time() - began


def _mean_tokens(encoder: SentenceEncoder, texts: list[str]) -> float:
    return sum(map(len, encoder.tokenize(texts)[0])) / len(texts)


def mean_bytes(texts: Sequence[str]) -> float:
    """Compute the mean size of a line of UTF-8 text, its line end included."""
    return sum(len(text.encode()) + 1 for text in texts) / len(texts)
