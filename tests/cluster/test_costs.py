"""The cost model of a plan, the table of measured rates, and new measurements."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from simcse_kit import SentenceEncoder
from simcse_kit.cluster import measure
from simcse_kit.cluster.costs import STEPS, Machines, Text, estimate, index_bytes
from simcse_kit.cluster.rates import RATED, Rate, Rates, Shape, devices, measured_rates, shape_of
from simcse_kit.encoder.folder.resolve import EMBEDDED
from simcse_kit.errors import ModelError

REPOSITORY = Path(__file__).parents[2]
TEXT = Text(1_000_000, 20.0, 100.0)
SHAPE = Shape("6x384x1536", 384, 20_000_000)
ONE = Machines("cpu", 4, 1, 4, 10**12, 1e9)
GPUS = Machines("H100", 8, 2, 16, 10**12, 1e9)
RATES = Rates(
    [
        Rate("tokenize", "cpu", 10_000, "here"),
        Rate("dedupe", "cpu", 50_000, "here", bytes=50.0),
        *(
            Rate(step, name, 1_000, "here", tokens=10.0)
            for step in ("encode", "train")
            for name in ("cpu", "H100")
        ),
        *(Rate("search", name, 1e12, "here") for name in ("cpu", "H100")),
    ]
)


def test_times_grow_with_the_text_and_shrink_with_the_devices() -> None:
    found = estimate("encode", TEXT, SHAPE, ONE, RATES)
    assert found.seconds == pytest.approx(3.5 + 2 * 1_000_000 / 1_000 / 4)
    assert found.parts["tokenizing"] == pytest.approx(1_000_000 / 10_000 / 4)
    more = estimate("encode", replace(TEXT, sentences=2_000_000), SHAPE, ONE, RATES)
    assert more.seconds == pytest.approx(2 * (found.seconds - 3.5) + 3.5)
    eight = estimate("encode", TEXT, SHAPE, replace(ONE, devices=8, cores=8), RATES)
    assert eight.seconds == pytest.approx((found.seconds - 3.5) / 2 + 3.5)


def test_the_slowest_part_is_the_bottleneck() -> None:
    assert estimate("encode", TEXT, SHAPE, GPUS, RATES).bottleneck == "computing"
    fast = RATES.replaced([Rate("encode", "H100", 1e9, "there")])
    assert estimate("encode", TEXT, SHAPE, GPUS, fast).bottleneck == "tokenizing"
    slow_network = replace(GPUS, network=1e3)
    assert estimate("encode", TEXT, SHAPE, slow_network, fast).bottleneck == "network"
    assert estimate("train", TEXT, SHAPE, slow_network, RATES).bottleneck == "network"
    many = replace(TEXT, sentences=10**9)
    assert estimate("mine", many, SHAPE, replace(GPUS, memory=10**14), RATES).bottleneck == "search"
    assert estimate("mine", many, SHAPE, replace(GPUS, memory=10**9), RATES).bottleneck == "memory"


def test_one_machine_has_no_traffic_and_deduplicates_on_one_core() -> None:
    found = estimate("dedupe", TEXT, SHAPE, ONE, RATES)
    assert found.network == 0
    assert found.seconds == pytest.approx(0.4 + 2 * 1_000_000 / 50_000)
    several = estimate("dedupe", TEXT, SHAPE, GPUS, RATES)
    assert several.parts["computing"] == pytest.approx(2 * 1_000_000 / 50_000 / 32)
    assert several.network > 0


@pytest.mark.parametrize(
    ("step", "memory", "network"),
    [
        ("encode", 0, 100 + 4 * 384),
        ("dedupe", 220, 100 + 2 * 24),
        ("dedupe-near", 700 + 100, 100 + 3 * 24),
        # One machine holds all vectors, and every one receives all, to compare them with its part.
        ("mine", 2 * 4 * 384, 100 + 2 * 4 * 384),
    ],
)
def test_two_machines_share_memory_and_traffic_except_in_mining(
    step: str, memory: int, network: int
) -> None:
    found = estimate(step, TEXT, SHAPE, GPUS, RATES)
    assert found.memory == memory * TEXT.sentences / 2
    assert found.network == network * TEXT.sentences / 2


def test_a_search_multiplies_and_adds_for_each_dimension_of_each_pair() -> None:
    found = estimate("mine", TEXT, SHAPE, GPUS, RATES)
    search = 2 * 384 * 1e6 * 1e6 / 1e12 / 8
    assert found.parts["search"] == pytest.approx(search)
    # It begins when all sentences are encoded.
    assert found.seconds == pytest.approx(3.5 + 2 * 1_000_000 / 1_000 / 8 + search)


def test_machines_exchange_the_gradients_of_every_step() -> None:
    found = estimate("train", TEXT, SHAPE, replace(GPUS, machines=4), RATES)
    steps = 1954  # of 64 sentences on each of 8 devices
    assert found.network == steps * 2 * 3 / 4 * 4 * SHAPE.parameters
    computing = 2 * 1_000_000 / 1_000 / 8
    assert found.seconds == pytest.approx(3.5 + computing + found.network / 1e9)
    assert found.machine_hours == pytest.approx(found.seconds / 3600 * 4)


def test_an_own_rate_replaces_those_of_all_encoders() -> None:
    table = Rates([Rate(step, "cpu", 1, "a", shape="x") for step in ("encode", "train")])
    found = table.replaced([Rate("encode", "cpu", 2, "b")])
    assert [found.find(step, "cpu", "x").source for step in ("encode", "train")] == ["b", "a"]


@pytest.mark.parametrize("step", STEPS)
def test_a_rate_that_is_missing_gives_no_time(step: str) -> None:
    found = estimate(step, TEXT, SHAPE, GPUS, Rates([]))
    assert (found.seconds, found.machine_hours) == (None, None)
    assert found.bottleneck == "not measured"
    assert set(found.missing) <= set(RATED)
    assert found.missing


def test_rates_are_those_of_their_result_files() -> None:
    """A renewed measurement must renew the table as well."""
    bench = json.loads((REPOSITORY / "evaluation/speed/results.json").read_text())["tasks"]
    for task, shape in {
        "encode-mini-varied": "4x256x1024",
        "encode-minilm-varied": "6x384x1536",
        "encode-bertbase-varied": "12x768x3072",
    }.items():
        rate = measured_rates().find("encode", "cpu", shape)
        assert rate is not None
        measured = bench[task]["variants"]["ours"]["sentences_per_second"]
        assert rate.per_second == pytest.approx(measured / 2, rel=0.01)
        assert rate.tokens == bench[task]["settings"]["tokens"]["mean"]
    for step in ("tokenize", "dedupe", "dedupe-near"):
        runs = json.loads((REPOSITORY / "evaluation/speed/scale/plan.json").read_text())["runs"]
        rate = measured_rates().find(step, "cpu", "")
        assert rate is not None
        measured = [run["rates"][step] for run in runs if step in run["rates"]]
        assert rate.per_second in {round(each["per_second"]) for each in measured}


def test_every_rate_names_a_known_device_and_a_source_that_exists() -> None:
    for step in RATED:
        for device in devices():
            for shape in ("4x256x1024", "6x256x1024", "6x384x1536", "12x768x3072"):
                rate = measured_rates().find(step, device, shape)
                if rate is None or rate.source.endswith("no result file"):
                    continue
                assert (REPOSITORY / rate.source.partition(",")[0]).is_file(), rate


def test_an_index_takes_the_memory_of_its_vectors_links_and_codes() -> None:
    assert index_bytes(10**9, 384)["exact"] == 1536e9
    assert index_bytes(10**9, 384)["HNSW"] == 1792e9
    assert 96e9 < index_bytes(10**9, 384)["IVF-PQ"] < 110e9


def test_shapes_are_read_without_the_weights(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    small = SentenceEncoder.load("small", device="cpu")
    counted = sum(weights.numel() for weights in small.backbone.parameters())
    # The weights are stored in fp16, so their number is not the size divided by four.
    assert shape_of(EMBEDDED["small"]) == Shape("6x256x1024", 256, counted)
    assert shape_of(tiny_encoder_dir).dim == 32
    for config in ('{"model_type": "static"}', "{", "[]"):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ModelError, match="needs a transformer"):
            shape_of(tmp_path)
    (tmp_path / "config.json").write_bytes((tiny_encoder_dir / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="copy the model again"):
        shape_of(tmp_path)


def test_duplicates_are_measured_with_as_many_lines_as_the_time_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def spent(texts: Sequence[str], level: str) -> float:
        assert level == "near"
        tried.append(len(texts))
        return len(texts) / 1000

    monkeypatch.setattr(measure, "_dedupe_seconds", spent)
    lines = ["a"] * 100_000
    assert measure._dedupe_rate(lines, "near", 5) == 1000
    assert measure._dedupe_rate(lines, "near", 1000) == 1000
    assert tried == [20_000, 20_000, 80_000, 100_000]


def test_near_duplicates_are_measured_at_their_level(monkeypatch: pytest.MonkeyPatch) -> None:
    def dedupe(file: Path, _: Path, *, level: str) -> None:
        assert file.read_text(encoding="utf-8") == "a cat\na dög\n"
        levels.append(level)

    levels: list[str] = []
    monkeypatch.setattr(measure, "dedupe", dedupe)
    measure._dedupe_seconds(["a cat", "a dög"], "near")
    assert levels == ["near"]


@pytest.mark.parametrize(
    ("device", "clock"), [("cpu", time.process_time), ("H100", time.perf_counter)]
)
def test_a_gpu_is_measured_by_the_clock_and_a_core_by_its_own_time(
    device: str, clock: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[Callable[[], float]] = []

    def seconds(_: Any, texts: list[str], clock: Callable[[], float] = time.process_time) -> float:
        clocks.append(clock)
        return len(texts) / 500

    monkeypatch.setattr(measure, "_seconds", seconds)
    monkeypatch.setattr(measure, "_dedupe_rate", lambda *_: 7.0)
    encoder: Any = SimpleNamespace(
        tokenize=lambda texts: ([[0] * 4 for _ in texts], 0), encode=lambda *_, **__: None
    )
    rates = measure.measure(encoder, ["a cat"] * 1000, device=device, seconds=1)
    assert clocks == [time.process_time, clock, clock]
    assert [(rate.step, rate.device, rate.per_second) for rate in rates] == [
        ("tokenize", "cpu", 500),
        ("encode", device, 500),
        ("dedupe", "cpu", 7),
        ("dedupe-near", "cpu", 7),
    ]
    assert [(rate.tokens, rate.bytes) for rate in rates] == [(4, 0), (4, 0), (0, 6), (0, 6)]


def test_the_first_lines_are_measured_in_bytes_with_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("é\nab\nfurther lines\n", encoding="utf-8")
    monkeypatch.setattr(measure, "LINES", 2)
    lines = measure.first_lines(path)
    assert (lines, measure.mean_bytes(lines)) == (["é", "ab"], 3)
