"""Coverage-guided fuzzing of every reader of user input.

    pip install atheris
    cd evaluation/reliability && python fuzz.py --seconds 60 --run NAME --csv fuzz.csv

Each target takes arbitrary bytes and must return a result or raise one of the toolkit's own errors
in one line. Anything else stops the target and is reported, with the bytes. libFuzzer chooses the
bytes by the branches that they reach in the instrumented package. ``--csv`` appends a row for each
target.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Each input is written to a file, in memory if possible.
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
    """Return the function of each target, which takes the bytes."""
    from simcse_kit.bulk.shard_log import ShardLog
    from simcse_kit.config import RunConfig
    from simcse_kit.config_files import load_config
    from simcse_kit.data.augment.chain import Chain
    from simcse_kit.data.read_options import ReadOptions
    from simcse_kit.data.readers import read_texts
    from simcse_kit.encoder.folder.recipe import read_recipe
    from simcse_kit.evaluation.pairs_file import load_pairs_file
    from simcse_kit.methods.common.objective_registry import parse_objective
    from simcse_kit.utils.settings import parse_setting

    def written(name: str, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    def rows(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> None:
            path = written(name, data)
            for on_bad_row in ("error", "skip"):
                try:
                    options = ReadOptions(on_bad_row=on_bad_row, max_line_bytes=2000)
                    for row in read_texts(path, options)[1]:
                        for text in row:
                            assert text
                            assert text == text.strip()
                            text.encode()
                except Exception as error:
                    allowed(error)

        return read

    def documents(data: bytes) -> None:
        for _ in read_texts(written("a.txt", data), ReadOptions(documents=2, max_line_bytes=2000))[
            1
        ]:
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
    """Ignore the toolkit's own one-line errors; raise all others."""
    from simcse_kit.errors import SimcseError

    if not isinstance(error, SimcseError) or "\n" in str(error):
        raise error


def fuzz(name: str, seconds: int, place: Path) -> None:
    """Fuzz one target in this process, which ends with libFuzzer's statistics."""
    import logging
    import warnings

    import atheris

    sys.path.insert(0, str(REPOSITORY))
    # Instrumenting the numeric libraries would take minutes.
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


def last_number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--targets", default="|".join(SEEDS), help="names, separated by |")
    parser.add_argument("--csv", type=Path, help="file to append the results to")
    parser.add_argument("--run", default="", help="name of this run in the file")
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "FOLDER"), help=argparse.SUPPRESS)
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
            crashes = [
                path.read_bytes().hex()[:8192]
                for path in Path(place).glob("*-*")
                if path.name.startswith(("crash", "timeout", "oom", "slow"))
            ]
        error = re.findall(r"=== Uncaught Python exception: ===\n(.*)", done.stdout + done.stderr)
        row = {
            "run": given.run,
            "target": name,
            "seconds": given.seconds,
            "executions": last_number(r"stat::number_of_executed_units: (\d+)", done.stderr),
            "per_second": last_number(r"stat::average_exec_per_sec: +(\d+)", done.stderr),
            "branches": last_number(r"cov: (\d+)", done.stderr),
            "corpus": last_number(r"corp: (\d+)", done.stderr),
            "findings": len(crashes),
            "error": error[0] if error else "",
        }
        rows.append(row)
        print(json.dumps(row | {"bytes": crashes}), flush=True)
        if done.returncode and not crashes:
            print(done.stderr[-2000:], file=sys.stderr)
    total, findings = (sum(row[key] for row in rows) for key in ("executions", "findings"))
    print(f"{total:,} executions, {findings} findings")
    if given.csv:
        with given.csv.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, list(rows[0]), lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
