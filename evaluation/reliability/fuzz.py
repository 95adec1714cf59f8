"""Coverage-guided fuzzing of everything that reads what users write.

    pip install atheris
    python evaluation/reliability/fuzz.py --seconds 60 --json evaluation/reliability/fuzz.json

Each target takes any bytes and may do one of two things: give a result, or raise one of the
toolkit's own errors, in one line. Everything else stops the run of that target and is reported.
libFuzzer guides the bytes by the branches of the instrumented package.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Files in memory, where there is such a place: each input is written to one.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

SEEDS: dict[str, list[bytes]] = {
    "txt": [b"a cat\na dog\n", b"\xef\xbb\xbfa\r\n\r\n"],
    "csv": [b"sent0,sent1\na,b\n", b'anchor,positive\n"a ""x""\n b",c\n', b"0,1\n"],
    "tsv": [b"sentence1\tsentence2\na\tb\n"],
    "jsonl": [b'{"anchor": "a", "positive": "b", "negatives": ["c"]}\n', b'{"text": "a"}\n'],
    "gzip": [],
    "parquet": [],
    "documents": [b"a\nb\n\nc\nd\n"],
    "graded pairs": [b"score\tsentence1\tsentence2\n4.5\ta\tb\n1\tc\td\n", b"3,a,b\n2,c,d\n"],
    "run.toml": [b'[training]\nseed = 1\n[method]\nname = "moco"\n[data]\ntrain = ["a.txt"]\n'],
    "setting": [b"method.temperature=0.1", b'training.memory_budget="4GB"'],
    "augment": [b"delete(0.1)|reorder(2)", b"crop(0.5,0.9)"],
    "objective": [b"triplet(margin=0.2, mining='hard')", b"info_nce(symmetric=True)"],
    "modules.json": [
        b'[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},'
        b'{"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]'
    ],
    "config.json": [b'{"model_type": "bert", "architectures": ["BertModel"]}'],
    "journal": [b'{"shard": 0, "file": "part-000000.npy", "rows": 1, "bytes": 9}\n'],
}


def targets(folder: Path) -> dict[str, Callable[[bytes], object]]:
    """What each target does with its bytes."""
    from simcse_kit.bulk.shard_log import ShardLog
    from simcse_kit.config import RunConfig, load_config, parse_setting
    from simcse_kit.data.augment.chain import Chain
    from simcse_kit.data.readers import read_examples, read_texts
    from simcse_kit.encoder.folder.recipe import read_recipe
    from simcse_kit.evaluation.pairs_file import load_pairs_file
    from simcse_kit.methods.common.objective_registry import parse_objective

    def written(name: str, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    def rows(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> None:
            path = written(name, data)
            for on_bad_row in ("error", "skip"):
                try:
                    for row in read_examples(path, on_bad_row=on_bad_row, max_line_bytes=2000):
                        for text in row.texts:
                            assert text
                            assert text == text.strip()
                            text.encode()
                except Exception as error:
                    allowed(error)

        return read

    def documents(data: bytes) -> None:
        for _ in read_texts(written("a.txt", data), documents=2, max_line_bytes=2000)[1]:
            pass

    def text_of(use: Callable[[str], object]) -> Callable[[bytes], object]:
        return lambda data: use(data.decode("utf-8", "surrogateescape"))

    def setting(text: str) -> None:
        load_config(overrides=[parse_setting(text)])

    def model(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> None:
            (folder / "config.json").write_text('{"model_type": "bert"}')
            (folder / "1_Pooling").mkdir(exist_ok=True)
            (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
            written(name, data)
            read_recipe(folder)

        return read

    def config(data: bytes) -> None:
        found = load_config(file=written("run.toml", data))
        again = folder / "again.toml"
        again.write_text(found.to_toml(), encoding="utf-8")
        same: RunConfig = load_config(file=again)
        assert same == found

    def journal(data: bytes) -> None:
        written("journal-1-of-1.jsonl", data)
        ShardLog(folder, (1, 1)).finished()

    return {
        **{name: rows(f"a.{name}") for name in ("txt", "csv", "tsv", "jsonl", "parquet")},
        "gzip": rows("a.jsonl.gz"),
        "documents": documents,
        "graded pairs": lambda data: load_pairs_file(written("pairs.tsv", data)),
        "run.toml": config,
        "setting": text_of(setting),
        "augment": text_of(lambda text: Chain.parse(text)),
        "objective": text_of(parse_objective),
        "modules.json": model("modules.json"),
        "config.json": model("config.json"),
        "journal": journal,
    }


def allowed(error: Exception) -> None:
    """Pass over the toolkit's own errors of one line; raise the others."""
    from simcse_kit.errors import SimcseError

    if not isinstance(error, SimcseError) or "\n" in str(error):
        raise error


def fuzz(name: str, seconds: int, place: Path) -> None:
    """One target, in a process of its own; ends with libFuzzer's statistics."""
    import logging
    import warnings

    import atheris

    sys.path.insert(0, str(REPOSITORY))
    # The numeric libraries are not ours, and instrumenting them takes minutes.
    with atheris.instrument_imports(include=["simcse_kit", "tomllib", "json", "csv"]):
        one = targets(place)[name]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    corpus = place / "corpus"
    corpus.mkdir()
    seeds = list(SEEDS[name])
    if name == "gzip":
        import gzip

        seeds = [gzip.compress(seed, mtime=0) for seed in SEEDS["jsonl"]]
    if name == "parquet":
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": ["a cat", "a dog"]}), buffer, compression="none")
        seeds = [buffer.getvalue()]
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def test(data: bytes) -> None:
        try:
            one(data)
        except Exception as error:
            allowed(error)

    options = [f"-max_total_time={seconds}", "-print_final_stats=1", "-max_len=4096"]
    atheris.Setup(
        ["fuzz", *options, f"-artifact_prefix={place}/", "-timeout=20", "-seed=1", str(corpus)],
        test,
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--targets", default="|".join(SEEDS), help="names, separated by |")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "FOLDER"))
    given = parser.parse_args()
    if given.one:
        fuzz(given.one[0], given.seconds, Path(given.one[1]))
        return
    rows: list[dict[str, Any]] = []
    for name in given.targets.split("|"):
        with tempfile.TemporaryDirectory(dir=MEMORY) as place:
            command = [
                sys.executable,
                __file__,
                "--seconds",
                str(given.seconds),
                "--one",
                name,
                place,
            ]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            said = done.stderr

            def number(pattern: str, said: str = said) -> int:
                found = re.findall(pattern, said)
                return int(found[-1]) if found else 0

            crashes = [
                {"file": path.name, "bytes": path.read_bytes().hex()[:8192]}
                for path in Path(place).glob("*-*")
                if path.name.startswith(("crash", "timeout", "oom", "slow"))
            ]
        error = re.findall(r"=== Uncaught Python exception: ===\n(.*)", done.stdout + said)
        row = {
            "target": name,
            "executions": number(r"stat::number_of_executed_units: (\d+)"),
            "per_second": number(r"stat::average_exec_per_sec: +(\d+)"),
            "branches": number(r"cov: (\d+)"),
            "corpus": number(r"corp: (\d+)"),
            "found": crashes,
            "error": error[:1],
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        if done.returncode and not crashes:
            print(said[-2000:], file=sys.stderr)
    total = sum(row["executions"] for row in rows)
    print(f"{total:,} executions, {sum(len(row['found']) for row in rows)} findings")
    if given.json:
        told = {"seconds_each": given.seconds, "executions": total, "rows": rows}
        given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
