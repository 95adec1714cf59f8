"""The command `simcse plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Simcse


def test_a_plan_names_time_memory_and_bottleneck(simcse: Simcse) -> None:
    done = simcse("plan", "--sentences", "1e9", "--device", "cpux64", "--machines", "4")
    assert done.code == 0, done.err
    assert "1,000,000,000 sentences" in done.out
    assert "memory of an index: exact 1.02 TB, HNSW 1.28 TB, IVF-PQ 72.3 GB" in done.out
    encode = next(line for line in done.out.splitlines() if line.startswith("encode"))
    assert "computing" in encode
    assert done.out.count("1,000,000 ") >= 1


def test_json_holds_every_scale(simcse: Simcse) -> None:
    done = simcse("plan", "--sentences", "1e6", "--step", "encode,mine", "--json")
    facts = json.loads(done.out)
    assert list(facts["steps"]) == ["encode", "mine"]
    assert facts["steps"]["encode"]["sentences"] == 1_000_000
    assert [row["sentences"] for row in facts["scales"]][::2] == [100, 1000, 10**4, 10**5, 10**6]
    assert facts["steps"]["encode"]["rates"][0]["source"].startswith("evaluation/")


def test_a_device_that_was_not_measured_gets_a_time_from_a_rate(simcse: Simcse) -> None:
    command = ["plan", "--sentences", "1e8", "--device", "A100x2", "--step", "encode"]
    done = simcse(*command)
    assert done.code == 0
    assert "encode  not measured" in done.out
    assert "not measured: encode" in done.out
    assert "give --rate KIND=N, or --measure FILE" in done.out
    again = simcse(*command, "--rate", "encode=5000")
    assert "2.78 h" in again.out
    assert "given with --rate" in again.out


@pytest.mark.parametrize(
    ("rate", "time"),
    [("9270", "90 min"), ("192.9", "3 d"), ("1", "579 d"), ("0.1", "15.9 y")],
)
def test_times_are_shown_in_the_largest_unit_of_which_there_are_two(
    rate: str, time: str, simcse: Simcse
) -> None:
    command = ["plan", "--sentences", "1e8", "--device", "A100x2", "--step", "encode"]
    done = simcse(*command, "--rate", f"encode={rate}")
    (line,) = (line for line in done.out.splitlines() if line.startswith("encode  "))
    assert line.split()[1:3] == time.split()


def test_machines_share_cores_and_have_a_network_in_bits(simcse: Simcse) -> None:
    options = ["--device", "cpux32", "--machines", "4", "--network", "8", "--json"]
    facts = json.loads(simcse("plan", "--sentences", "50", *options).out)
    assert (facts["machines"]["cores"], facts["machines"]["network"]) == (8, 1e9)
    assert sorted({row["sentences"] for row in facts["scales"]}) == [5, 50]


def test_with_a_gpu_tokenizing_has_the_rate_of_a_core(simcse: Simcse) -> None:
    options = ["--device", "H100", "--rate", "tokenize=5", "--rate", "encode=7", "--json"]
    facts = json.loads(simcse("plan", "--sentences", "1e6", "--step", "encode", *options).out)
    rates = facts["steps"]["encode"]["rates"]
    found = {(rate["step"], rate["device"], rate["per_second"]) for rate in rates}
    assert found == {("tokenize", "cpu", 5), ("encode", "H100", 7)}


@pytest.mark.long
def test_rates_are_measured_with_the_lines_of_a_file(
    simcse: Simcse, texts: Path, tiny_encoder_dir: Path
) -> None:
    options = ["--measure", texts, "--seconds", "0.1", "--model", tiny_encoder_dir, "--json"]
    done = simcse("plan", "--sentences", "1000", "--step", "encode,dedupe,dedupe-near", *options)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    sources = {rate["source"] for step in facts["steps"].values() for rate in step["rates"]}
    assert sources == {"measured now on this machine"}
    assert facts["text"]["tokens"] != 24
    own = ["--tokens", "30", "--characters", "40", "--rate", "encode=5"]
    done = simcse("plan", "--sentences", "1000", "--step", "encode", *options, *own)
    facts = json.loads(done.out)
    assert (facts["text"]["tokens"], facts["text"]["bytes"]) == (30, 40)
    rates = {rate["step"]: rate["source"] for rate in facts["steps"]["encode"]["rates"]}
    assert rates == {
        "tokenize": "measured now on this machine",
        "encode": "given with --rate",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sentences", "-1"], "--sentences is '-1'; give a number from 1 to 1e15, such as 1e9"),
        (["--sentences", "2e15"], "give a number from 1 to 1e15"),
        (["--sentences", "1e400"], "give a number from 1 to 1e15"),
        (["--sentences", "abc"], "--sentences is 'abc'; give a number"),
        (["--sentences", "nan"], "give a number from 1 to 1e15"),
        (["--device", "gpu"], "device 'gpu' is not known; allowed: cpu, H100, "),
        (["--device", "H100x0"], "has 0 devices for --machines 1; give each machine at least one"),
        (["--device", "H100", "--machines", "2", "--rate", "x"], "--rate x: give KIND=N"),
        (["--device", "H100x2", "--machines", "4"], "such as H100x4"),
        (["--model", "./absent"], "no such model folder"),
        (["--step", "fly"], "allowed: all, encode, dedupe, dedupe-near, mine, train"),
        (["--memory", "lots"], "--memory is 'lots'; it must be a size such as 4GB"),
        (["--network", "0"], "--network is 0.0; give Gbit/s above 0"),
        (["--rate", "encode=-3"], "give KIND=N with N above 0, such as encode=12000"),
        (["--tokens", "inf"], "--tokens is inf; give a number above 0"),
        (["--measure", "absent.txt"], "absent.txt"),
    ],
)
def test_bad_input_is_one_line(simcse: Simcse, options: list[str], said: str) -> None:
    given = options if "--sentences" in options else ["--sentences", "1e9", *options]
    done = simcse("plan", *given)
    assert done.code == 2
    assert (done.out, done.err.count("\n")) == ("", 1), done.err
    assert said in done.err
