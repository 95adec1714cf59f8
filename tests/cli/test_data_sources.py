"""Commands that read several files, addresses and other forms of graded pairs."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Simcse
from tests.small_data import sentences

RECORDS = [
    {"text1": "a cat sat", "text2": "a cat sat", "label": 7},
    {"text1": "a dog ran", "text2": "a dog sings", "label": 5},
    {"text1": "red bird", "text2": "river music", "label": 1},
]


@pytest.mark.long
def test_train_reads_stores_with_weights_and_without_duplicates(
    store: Any, tmp_path: Path, tiny_encoder_dir: Path, simcse: Simcse
) -> None:
    texts = sentences(60)
    for name, rows in (("a.txt", texts[:20]), ("b.txt", texts[20:])):
        store.pipe(f"/bucket/{name}", ("\n".join(rows) + "\n").encode())
    dev = "\n".join(f"{n}\t{texts[n]}\t{texts[-n]}" for n in range(6))
    store.pipe("/bucket/dev.tsv", dev.encode())
    addresses = ["memory://bucket/a.txt", "memory://bucket/b.txt"]
    done = simcse(
        *("train", *addresses, "--model", str(tiny_encoder_dir), "--batch-size", "4"),
        *("--max-steps", "3", "--output", str(tmp_path / "out"), "--preset", "none"),
        *("--dev", "memory://bucket/dev.tsv", "--set", "data.weights=[2, 1]"),
        *("--set", "data.sampling=round_robin", "--set", "data.no_duplicates=true"),
    )
    assert done.code == 0, done.err
    data = tomllib.loads((tmp_path / "out" / "run.toml").read_text())["data"]
    assert (data["train"], data["weights"], data["sampling"], data["no_duplicates"]) == (
        addresses,
        [2.0, 1.0],
        "round_robin",
        True,
    )


def write_records(folder: Path) -> str:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in RECORDS), encoding="utf-8")
    return str(file)


def test_eval_takes_records_and_a_scale(tmp_path: Path, simcse: Simcse) -> None:
    found = tmp_path / "report.json"
    tasks = ("--tasks", write_records(tmp_path), "--resamples", "0", "--json", str(found))
    positives = []
    for scale in ((), ("--scale", "0,10")):
        done = simcse("eval", "mini", *tasks, *scale)
        assert done.code == 0, done.err
        positives.append(json.loads(found.read_text())["geometry"]["positives"])
    # Above 80 % of 7, and of 10.
    assert positives == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "7"], "scale is '7'; it must be the lowest and the highest score"),
        (["--scale", "0,5"], "mine.jsonl:1: score '7' is outside 0 to 5"),
        (["--tasks", "STS12", "--scale", "0,5"], "leave --scale out"),
    ],
)
def test_a_wrong_scale_is_one_line(
    tmp_path: Path, arguments: list[str], message: str, simcse: Simcse
) -> None:
    done = simcse("eval", "mini", "--tasks", write_records(tmp_path), *arguments)
    assert done.code == 2
    assert message in done.err.splitlines()[-1]


COMMANDS = {
    "dedupe": "data dedupe {pairs} --output {out}.csv",
    "split": "data split {pairs} --dev-test 5,5 --output {out}",
    "nli": "data nli {nli} --output {out}.csv",
    "qa": "data qa {pairs} --question sent0 --answer sent1 --output {out}.csv",
    "mine": "data mine {texts} --pool {texts} --model {model} --output {out}.csv --factor 1 "
    "--positive-score -1 --min-score -0.9",
    "check-leak": "data check-leak {texts} --against {graded} --matches {out}.tsv",
    "encode": "encode {model} {texts} --output {out}.npy",
    "index": "index build {model} {texts} --output {out}",
    "postprocess": "postprocess {model} --post standardize --fit {texts} --output {out}",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_address_is_read_like_a_file(
    name: str, store: Any, tmp_path: Path, tiny_encoder_dir: Path, simcse: Simcse
) -> None:
    texts = sentences(40)
    files = {
        "texts.txt": "".join(f"{text}\n" for text in texts),
        "pairs.csv": "sent0,sent1\n" + "".join(f"{a},{b}\n" for a, b in pairwise(texts)),
        "nli.csv": "premise,hypothesis,label\n"
        + "".join(f"{texts[n // 2]},{texts[n + 1]},{n % 2 * 2}\n" for n in range(30)),
        "graded.tsv": "".join(f"{n}\t{texts[n]}\t{texts[-n]}\n" for n in range(6)),
    }
    local = tmp_path / "local"
    local.mkdir()
    for file, text in files.items():
        (local / file).write_text(text, encoding="utf-8")
        store.pipe(f"/bucket/{file}", text.encode())
    outputs: list[Any] = []
    for place in (str(local), "memory://bucket"):
        words = {Path(file).stem: f"{place}/{file}" for file in files}
        output = tmp_path / f"out-{len(outputs)}"
        command = COMMANDS[name].format(**words, model=tiny_encoder_dir, out=output)
        done = simcse(*command.split())
        assert done.code == 0, done.err
        found = [path for path in tmp_path.rglob("*") if str(path).startswith(str(output))]
        outputs.append(
            {
                str(path).removeprefix(str(output)): path.read_bytes()
                for path in found
                if path.is_file() and path.suffix in (".csv", ".tsv", ".npy")
            }
        )
    if name == "check-leak":  # whose first column names the copy
        outputs = [[row.split(b"\t")[1:] for row in each[".tsv"].splitlines()] for each in outputs]
    assert outputs[0] == outputs[1]
    assert outputs[0] or name in ("index", "postprocess")
