"""Command `simcse plan`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simcse_kit.cli.options import AsJson
from simcse_kit.errors import ConfigError

if TYPE_CHECKING:
    from simcse_kit.cluster.costs import Estimate, Machines, Text
    from simcse_kit.cluster.rates import Rate, Shape

__all__ = ["plan_command"]

_MOST = 1e15
_DIVISORS = (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_UNITS = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def plan_command(
    sentences: Annotated[str, typer.Option(metavar="N", help="Number of sentences, such as 1e9.")],
    model: Annotated[str, typer.Option(help="Bundled name, folder, or Hub name.")] = "small",
    device: Annotated[
        str,
        typer.Option(metavar="NAME[xN]", help="Devices in total: H100x8; cpux16 means 16 cores."),
    ] = "cpu",
    step: Annotated[
        str, typer.Option(metavar="NAME,...", help="encode, dedupe, dedupe-near, mine, train.")
    ] = "all",
    machines: Annotated[int, typer.Option(min=1, help="Machines that share the devices.")] = 1,
    cores: Annotated[
        int, typer.Option(min=1, help="CPU cores of each machine that has GPUs.")
    ] = 16,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each machine.")] = "64GB",
    network: Annotated[float, typer.Option(help="Network of each machine in Gbit/s.")] = 10.0,
    tokens: Annotated[
        float | None, typer.Option(help="Mean tokens of a sentence. [default: 24, or measured]")
    ] = None,
    characters: Annotated[
        float | None, typer.Option(help="Mean bytes of a line. [default: 100, or measured]")
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            "--rate",
            metavar="KIND=N",
            help="Own rate in sentences/s of one device or core: tokenize, encode, dedupe, "
            "dedupe-near, train; search in operations/s.",
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Measure rates on this machine with lines of FILE."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for measuring the encoder.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Estimate time, memory, disk and network of work on N sentences, and what limits it.

    Times come from measured rates; a device or encoder without one is reported as "not measured".
    """
    from simcse_kit.cluster.costs import Text, estimate
    from simcse_kit.cluster.rates import measured_rates, shape_of
    from simcse_kit.encoder.folder.resolve import resolve_model

    count = _count(sentences)
    steps = _steps(step)
    place = _machines(device, machines, cores, memory, network)
    own = [_rate(text, place.device) for text in rate or []]
    lengths = {"--tokens": tokens, "--characters": characters, "--seconds": seconds}
    for name, value in lengths.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}; give a number above 0")
    shape = shape_of(resolve_model(model))
    found: list[Rate] = []
    if measure is not None:
        found, tokens, characters = _measured(model, measure, place, seconds, tokens, characters)
    text = Text(count, tokens or 24.0, characters or 100.0)
    rates = measured_rates().replaced(found).replaced(own)
    sizes = [count // 10**power for power in range(4, -1, -1) if count // 10**power]
    scales = [
        [estimate(name, Text(size, text.tokens, text.bytes), shape, place, rates) for name in steps]
        for size in sizes
    ]
    if as_json:
        typer.echo(json.dumps(_facts(text, shape, place, model, scales)))
    else:
        _show(text, shape, place, model, scales)


def _count(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value <= _MOST:
        raise ConfigError(f"--sentences is {text!r}; give a number from 1 to 1e15, such as 1e9")
    return int(value)


def _steps(text: str) -> list[str]:
    from simcse_kit.cluster.costs import STEPS

    names = list(STEPS) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in STEPS:
            raise ConfigError(f"--step names {name!r}; allowed: all, {', '.join(STEPS)}")
    return names


def _machines(device: str, machines: int, cores: int, memory: str, network: float) -> Machines:
    from simcse_kit.cluster.costs import Machines
    from simcse_kit.cluster.rates import check_device
    from simcse_kit.utils.sizes import parse_bytes

    match = re.fullmatch(r"(.+?)(?:x([0-9]{1,9}))?", device)
    name, devices = (match[1], int(match[2] or machines)) if match else (device, 1)
    check_device(name)
    if devices < machines:
        raise ConfigError(
            f"--device {device} has {devices} devices for --machines {machines}; give each "
            f"machine at least one, such as {name}x{machines}"
        )
    if not 0 < network < math.inf:
        raise ConfigError(f"--network is {network}; give Gbit/s above 0, such as 10")
    try:
        size = parse_bytes(memory)
    except ValueError as error:
        raise ConfigError(f"--memory is {memory!r}; it {error}") from None
    if name == "cpu":
        cores = devices // machines
    return Machines(name, devices, machines, cores, size, network * 1e9 / 8)


def _rate(text: str, device: str) -> Rate:
    from simcse_kit.cluster.rates import RATED, Rate

    step, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if step not in RATED or not 0 < value < math.inf:
        raise ConfigError(
            f"--rate {text}: give KIND=N with N above 0, such as encode=12000; KIND is one of "
            f"{', '.join(RATED)}"
        )
    where = "cpu" if step in ("tokenize", "dedupe", "dedupe-near") else device
    return Rate(step, where, value, "given with --rate")


def _measured(
    model: str,
    file: str,
    place: Machines,
    seconds: float,
    tokens: float | None,
    characters: float | None,
) -> tuple[list[Rate], float, float]:
    """Measure rates, and the lengths of sentences that were not given."""
    from simcse_kit.cli.options import load_encoder
    from simcse_kit.cluster.measure import first_lines, mean_bytes, measure

    lines = first_lines(file)
    encoder = load_encoder(model, "cpu" if place.device == "cpu" else "cuda")
    rates = measure(encoder, lines, device=place.device, seconds=seconds)
    found = next(rate for rate in rates if rate.step == "tokenize")
    return rates, tokens or found.tokens, characters or mean_bytes(lines)


def _facts(
    text: Text, shape: Shape, place: Machines, model: str, scales: list[list[Estimate]]
) -> dict[str, Any]:
    from simcse_kit.cluster.costs import index_bytes

    return {
        "text": asdict(text),
        "model": {"name": model, **asdict(shape)},
        "machines": asdict(place),
        "steps": {each.step: asdict(each) for each in scales[-1]},
        "disk": _disk(text, shape),
        "index_memory": index_bytes(text.sentences, shape.dim),
        "scales": [asdict(each) for row in scales for each in row],
    }


def _disk(text: Text, shape: Shape) -> dict[str, float]:
    return {"text": text.sentences * text.bytes, "vectors": 4.0 * shape.dim * text.sentences}


def _show(
    text: Text, shape: Shape, place: Machines, model: str, scales: list[list[Estimate]]
) -> None:
    from simcse_kit.cluster.costs import index_bytes
    from simcse_kit.utils.tables import Table, render_text

    say = typer.echo
    say(f"{text.sentences:,} sentences of {text.tokens:.4g} tokens and {text.bytes:.4g} bytes")
    say(f"{model}: {shape.key}, vectors of {shape.dim} dimensions")
    each = "machine" if place.machines == 1 else "machines"
    say(f"{place.devices} x {place.device} in {place.machines} {each}\n")
    last = scales[-1]
    heads = ["step", "time", "machine-hours", "bottleneck", "memory", "network"]
    rows = [
        [
            found.step,
            _time(found),
            "" if found.machine_hours is None else f"{found.machine_hours:,.3g}",
            found.bottleneck,
            _size(found.memory),
            _size(found.network),
        ]
        for found in last
    ]
    say(render_text(Table.of_text(heads, rows)))
    say("memory and network: of each machine; memory of mine: of the machine where it runs\n")
    disk = ", ".join(f"{name} {_size(size)}" for name, size in _disk(text, shape).items())
    index = index_bytes(text.sentences, shape.dim).items()
    say(f"disk: {disk}")
    say(f"memory of an index: {', '.join(f'{name} {_size(size)}' for name, size in index)}\n")
    heads = ["sentences", *(found.step for found in last)]
    lines = [[f"{row[0].sentences:,}", *map(_time_and_bottleneck, row)] for row in scales]
    say(render_text(Table.of_text(heads, lines), width=100))
    used = {(rate.step, rate.device): rate for found in last for rate in found.rates}
    say("\nrates of one device or core:")
    for rate in used.values():
        unit = "operations/s" if rate.step == "search" else "sentences/s"
        say(f"  {rate.step}, {rate.device}: {rate.per_second:,.4g} {unit} ({rate.source})")
    missing = sorted({kind for found in last for kind in found.missing})
    if missing:
        say(f"not measured: {', '.join(missing)}; give --rate KIND=N, or --measure FILE")


def _time(found: Estimate) -> str:
    if found.seconds is None:
        return "not measured"
    for unit, length in _DIVISORS:
        if found.seconds >= 2 * length or unit == "s":
            return f"{found.seconds / length:,.3g} {unit}"
    raise AssertionError


def _time_and_bottleneck(found: Estimate) -> str:
    time = _time(found)
    return time if time == found.bottleneck else f"{time}, {found.bottleneck}"


def _size(size: float) -> str:
    for unit, length in _UNITS:
        if size >= length:
            return f"{size / length:,.3g} {unit}"
    return f"{size:.0f} B" if size else ""
