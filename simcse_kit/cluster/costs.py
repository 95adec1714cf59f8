"""Cost model of encoding, deduplication, mining and training: time, memory, disk and network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from simcse_kit.cluster.rates import Rate, Rates, Shape
from simcse_kit.metrics.faiss_index import plan_for

__all__ = ["STEPS", "Estimate", "Machines", "Text", "estimate", "index_bytes"]

STEPS = ("encode", "dedupe", "dedupe-near", "mine", "train")
"""The steps of a plan: ``dedupe`` is ``simcse data dedupe``, ``dedupe-near`` its level ``near``."""

BATCH = 64
"""Sentences per device and training step, as in the measurements of training rates."""

# Seconds until a command computes: evaluation/speed/results.json, startup-encode, and for
# deduplication, which loads no encoder, evaluation/speed/scale/plan.json.
_START = {"dedupe": 0.4, "dedupe-near": 0.4}
_START_OF_ENCODERS = 3.5
# Bytes of memory per row of the local engine of `simcse data dedupe`, in addition to the text for
# the level near: evaluation/speed/scale/plan.json.
_ROW_BYTES = {"dedupe": 220, "dedupe-near": 700}
# Growth of the time of a row with each tenfold of the rows beyond 100,000: keys are sorted, and
# tables leave the caches (100,000 to 1,000,000 rows of the same file).
_GROWTH = {"dedupe": 0.0, "dedupe-near": 0.12}
# Bytes of a digest that deduplication exchanges for each row and level, with its row number.
_DIGEST = 24


@dataclass(frozen=True)
class Text:
    """The size of a corpus.

    Attributes:
        sentences: Number of sentences.
        tokens: Mean number of tokens of a sentence, special tokens included.
        bytes: Mean number of bytes of a line.
    """

    sentences: int
    tokens: float
    bytes: float


@dataclass(frozen=True)
class Machines:
    """Machines that share the work equally.

    Attributes:
        device: Name of the device; ``cpu`` means one core.
        devices: Number of devices of all machines together.
        machines: Number of machines.
        cores: Number of CPU cores of each machine.
        memory: Memory of each machine in bytes.
        network: Bytes per second between a machine and the storage or the other machines.
    """

    device: str
    devices: int
    machines: int
    cores: int
    memory: int
    network: float

    @property
    def one(self) -> bool:
        """Whether there is one machine, which reads its own disk."""
        return self.machines == 1


@dataclass(frozen=True)
class Estimate:
    """What a step costs.

    Attributes:
        step: One of :data:`STEPS`.
        sentences: Number of sentences.
        seconds: Wall time; None if a rate was not measured.
        bottleneck: The part that takes longest, or ``memory`` if the memory does not suffice.
        parts: Seconds of each part.
        machine_hours: Wall time multiplied by the number of machines; None if unknown.
        memory: Bytes that a machine must hold in memory; of mining, that of the command.
        network: Bytes that each machine sends and receives.
        missing: Kinds of work whose rate was not measured.
        rates: The rates that were used.
    """

    step: str
    sentences: int
    seconds: float | None = None
    bottleneck: str = "not measured"
    parts: dict[str, float] = field(default_factory=dict)
    machine_hours: float | None = None
    memory: float = 0.0
    network: float = 0.0
    missing: tuple[str, ...] = ()
    rates: tuple[Rate, ...] = ()


def estimate(step: str, text: Text, shape: Shape, machines: Machines, rates: Rates) -> Estimate:
    """Estimate the cost of one step.

    The time is the start-up and the longest of the parts, which overlap; tokenizing and computing
    on the same CPU cores are added, as are encoding and search, and training and the exchange of
    gradients.

    Args:
        step: One of :data:`STEPS`.
        text: Size of the corpus.
        shape: Sizes of the encoder.
        machines: What computes.
        rates: Measured rates.

    Examples:
        >>> from simcse_kit.cluster.rates import measured_rates
        >>> text, shape = Text(1_000_000, 23.4, 110), Shape("6x384x1536", 384, 22_700_000)
        >>> machines = Machines("cpu", 2, 1, 2, 16 * 10**9, 1.25e9)
        >>> found = estimate("encode", text, shape, machines, measured_rates())
        >>> round(found.seconds), found.bottleneck
        (3138, 'computing')
    """
    work = _Work(text, shape, machines, rates)
    if step == "encode":
        return work.encode()
    if step == "mine":
        return work.mine()
    if step == "train":
        return work.train()
    return work.dedupe(step)


def index_bytes(rows: int, dim: int) -> dict[str, float]:
    """Return the memory of an index with float32 vectors, a graph, or quantized vectors, in bytes.

    Args:
        rows: Number of vectors.
        dim: Number of dimensions.

    Examples:
        >>> {name: size / 1e9 for name, size in index_bytes(10**6, 256).items()}
        {'exact': 1.024, 'HNSW': 1.28, 'IVF-PQ': 0.080192}
    """
    quantized = plan_for(max(rows, 4_000_001), dim)
    cells = int(8 * rows**0.5)
    return {
        "exact": 4.0 * dim * rows,
        "HNSW": rows * (4.0 * dim + 8 * plan_for(1, dim).links),
        # Codes, row numbers, and the centers of the cells.
        "IVF-PQ": rows * (quantized.code_bytes + 8.0) + 4.0 * dim * cells,
    }


@dataclass(frozen=True)
class _Work:
    text: Text
    shape: Shape
    machines: Machines
    rates: Rates

    def encode(self) -> Estimate:
        """Estimate encoding: tokens and vectors of every sentence."""
        text, machines = self.text, self.machines
        parts, rates, missing = self._encoding()
        moved = text.sentences * (text.bytes + 4 * self.shape.dim) / machines.machines
        return self._estimate("encode", parts, missing, rates, network=moved)

    def dedupe(self, step: str) -> Estimate:
        """Estimate deduplication: one core of one machine, or all cores of several."""
        text, machines = self.text, self.machines
        workers = 1 if machines.one else machines.cores * machines.machines
        parts, rates, missing = self._parts({"computing": (step, "cpu", workers)})
        if machines.one and "computing" in parts:
            parts["computing"] *= 1 + _GROWTH[step] * max(0.0, math.log10(text.sentences / 1e5))
        levels = 3 if step == "dedupe-near" else 2
        moved = text.sentences * (text.bytes + levels * _DIGEST) / machines.machines
        held = text.sentences * (_ROW_BYTES[step] + (text.bytes if levels == 3 else 0))
        return self._estimate(
            step, parts, missing, rates, network=moved, memory=held / machines.machines
        )

    def mine(self) -> Estimate:
        """Estimate mining of single texts: encoding, and an exact search among all of them."""
        text, machines = self.text, self.machines
        parts, rates, missing = self._encoding()
        rate = self.rates.find("search", machines.device, self.shape.key)
        if rate is None:
            missing = (*missing, "search")
        else:
            products = 2.0 * self.shape.dim * float(text.sentences) ** 2
            parts["search"] = products / rate.per_second / machines.devices
            rates = (*rates, rate)
        # The machine of the command holds all vectors. Each one gets its part of the text, and all
        # vectors as queries.
        held = 4.0 * self.shape.dim * text.sentences
        moved = text.sentences * (text.bytes / machines.machines + 4.0 * self.shape.dim)
        return self._estimate(
            "mine", parts, missing, rates, network=moved, memory=held, added=("computing", "search")
        )

    def train(self) -> Estimate:
        """Estimate one epoch of training; every process tokenizes the whole batch."""
        text, machines = self.text, self.machines
        work = {"computing": ("train", machines.device, machines.devices)}
        parts, rates, missing = self._parts(work)
        if machines.device != "cpu":
            tokens, more, unknown = self._parts({"tokenizing": ("tokenize", "cpu", 1)})
            parts, rates, missing = parts | tokens, (*rates, *more), (*missing, *unknown)
        steps = math.ceil(text.sentences / (BATCH * machines.devices))
        # A ring of all machines passes every gradient almost twice.
        share = 2 * (machines.machines - 1) / machines.machines
        moved = steps * share * 4.0 * self.shape.parameters
        added = ("computing", "network")
        return self._estimate("train", parts, missing, rates, network=moved, added=added)

    def _encoding(self) -> tuple[dict[str, float], tuple[Rate, ...], tuple[str, ...]]:
        machines = self.machines
        parts, rates, missing = self._parts(
            {"computing": ("encode", machines.device, machines.devices)}
        )
        cores = machines.cores * machines.machines
        tokens, more, unknown = self._parts({"tokenizing": ("tokenize", "cpu", cores)})
        if machines.device != "cpu":
            return parts | tokens, (*rates, *more), (*missing, *unknown)
        if parts and tokens:  # the rate of encoding on a CPU includes tokenizing
            tokens["tokenizing"] = min(tokens["tokenizing"], parts["computing"])
            parts = {"computing": parts["computing"] - tokens["tokenizing"], **tokens}
            rates = (*rates, *more)
        return parts, rates, missing

    def _parts(
        self, work: dict[str, tuple[str, str, int]]
    ) -> tuple[dict[str, float], tuple[Rate, ...], tuple[str, ...]]:
        """Return the seconds of parts, the rates used, and the kinds of work without a rate."""
        parts, rates, missing = {}, [], []
        for part, (step, device, workers) in work.items():
            rate = self.rates.find(step, device, self.shape.key)
            if rate is None:
                missing.append(step)
                continue
            seconds = rate.seconds(self.text.sentences, self.text.tokens, self.text.bytes)
            parts[part] = seconds / workers
            rates.append(rate)
        return parts, tuple(rates), tuple(missing)

    def _estimate(
        self,
        step: str,
        parts: dict[str, float],
        missing: Sequence[str],
        rates: Sequence[Rate],
        *,
        network: float = 0.0,
        memory: float = 0.0,
        added: Sequence[str] = (),
    ) -> Estimate:
        """Combine parts that overlap, and the ``added`` ones, which do not."""
        machines = self.machines
        if machines.one:
            network = 0.0
        else:
            parts = {**parts, "network": network / machines.network}
        seconds: float | None = None
        bottleneck = "not measured"
        if not missing:
            if machines.device == "cpu":
                added = (*added, "tokenizing", "computing")
            overlapping = (value for part, value in parts.items() if part not in added)
            own = sum(value for part, value in parts.items() if part in added)
            start = _START.get(step, _START_OF_ENCODERS)
            seconds = start + max(own, *overlapping, 0.0)
            bottleneck = max(parts, key=lambda part: parts[part])
        if memory > machines.memory:
            bottleneck = "memory"
        hours = None if seconds is None else seconds / 3600 * machines.machines
        return Estimate(
            step,
            self.text.sentences,
            seconds,
            bottleneck,
            parts,
            hours,
            memory,
            network,
            tuple(missing),
            tuple(rates),
        )
