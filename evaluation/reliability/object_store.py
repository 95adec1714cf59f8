"""Read text from an S3 server: encoding with both engines, training from a stream, and errors.

    pip install s3fs 'moto[server]'
    python evaluation/reliability/object_store.py --json FILE

Starts the S3 server of moto on this machine, and uploads the sentences of `data/sentences.txt` as
parquet and jsonl shards. Compared are vectors and weights from the addresses with those from local
files. Then come a bucket that does not exist, one without permission, and a shard that is deleted
while workers of Ray read; each must end with exit code 2 and one line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
SHARDS = 8


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


class Runs:
    """Commands with the address and the credentials of the server.

    Args:
        endpoint: Address of the server.
        place: Folder for the cache and the outputs.
    """

    def __init__(self, endpoint: str, place: Path):
        self.endpoint = endpoint
        self.place = place
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self, *arguments: str, cache: str = "cache") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "simcse_kit", "-q", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | {"SIMCSE_CACHE": str(self.place / cache)},
        )

    def done(self, *arguments: str) -> None:
        process = self.start(*arguments)
        _, printed = process.communicate()
        if process.returncode:
            raise SystemExit(f"simcse {' '.join(arguments)} failed:\n{printed}")

    def refused(self, process: subprocess.Popen[str], output: Path) -> dict[str, Any]:
        """Check that a command ends with one line, and return the line."""
        _, printed = process.communicate()
        lines = [line for line in printed.splitlines() if line.strip()]
        found = {
            "exit code": process.returncode,
            "lines": len(lines),
            "message": lines[-1] if lines else "",
            "output exists": output.exists(),
        }
        print(json.dumps(found), flush=True)
        return found


def upload(client: Any, folder: Path) -> Path:
    """Upload shards of sentences; write the same sentences to a folder, which is returned."""
    texts = (REPOSITORY / "data/sentences.txt").read_text(encoding="utf-8").splitlines()
    local = folder / "shards"
    local.mkdir()
    client.create_bucket(Bucket="bucket")
    size = -(-len(texts) // SHARDS)
    for number in range(SHARDS):
        some = texts[number * size : (number + 1) * size]
        path = local / f"{number}.{'parquet' if number % 2 else 'jsonl'}"
        if number % 2:
            pq.write_table(pa.table({"text": some}), path)
        else:
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
        client.upload_file(str(path), "bucket", f"shards/{path.name}")
    return local


def encoding(runs: Runs, local: Path) -> dict[str, float]:
    vectors = {}
    for name, source, engine in (
        ("local files", str(local), "local"),
        ("address, local engine", "s3://bucket/shards/", "local"),
        ("address, Ray", "s3://bucket/shards/", "ray"),
    ):
        output = runs.place / f"{name}.npy"
        more = ["--output", str(output), "--engine", engine, "--shard-rows", "100"]
        runs.done("encode", "mini", source, *more)
        vectors[name] = np.load(output)
    base = vectors.pop("local files")
    return {name: float(abs(base - found).max()) for name, found in vectors.items()}


def training(runs: Runs, local: Path) -> float:
    weights = []
    for name, source in (("local", str(local)), ("address", "s3://bucket/shards/")):
        output = runs.place / f"model-{name}"
        settings = ["--set", "data.stream=1MB", "--set", "evaluation.held_out=0"]
        options = ["--model", "mini", "--preset", "none", "--batch-size", "16", "--max-steps", "40"]
        runs.done("train", source, *options, *settings, "--output", str(output))
        weights.append(load_file(output / "model.safetensors"))
    return max(float(abs(weights[0][name] - weights[1][name]).max()) for name in weights[0])


def errors(runs: Runs, client: Any) -> dict[str, Any]:
    found = {}
    output = runs.place / "refused"

    def encode(address: str, engine: str) -> subprocess.Popen[str]:
        more = ["--output", f"{output}/", "--engine", engine, "--shard-rows", "20"]
        return runs.start("encode", "mini", address, *more, cache="other")

    for engine in ("local", "ray"):
        process = encode("s3://no-such-bucket/shards/", engine)
        found[f"no bucket, {engine}"] = runs.refused(process, output)
    process = encode("s3://bucket/shards/", "ray")
    while not (output / "job.json").exists() and process.poll() is None:
        time.sleep(0.01)
    name = f"shards/{SHARDS - 1}.parquet"
    kept = client.get_object(Bucket="bucket", Key=name)["Body"].read()
    client.delete_object(Bucket="bucket", Key=name)
    entry = runs.refused(process, output)
    client.put_object(Bucket="bucket", Key=name, Body=kept)
    process = encode("s3://bucket/shards/", "ray")
    process.communicate()
    entry["continued when it is back"] = process.returncode == 0
    found["deleted shard, ray"] = entry
    shutil.rmtree(output)
    # From now on, the server checks the credentials, which it does not know.
    address, headers = f"{runs.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(address, b"0", headers)).close()
    for engine in ("local", "ray"):
        process = encode("s3://bucket/shards/", engine)
        found[f"no permission, {engine}"] = runs.refused(process, output)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import boto3

    port = free_port()
    with TemporaryDirectory() as name:
        place = Path(name)
        runs = Runs(f"http://127.0.0.1:{port}", place)
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = boto3.client(
                "s3",
                endpoint_url=runs.endpoint,
                aws_access_key_id="key",
                aws_secret_access_key="secret",
                region_name="us-east-1",
            )
            until = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            local = upload(client, place)
            result = {
                "largest difference of vectors": encoding(runs, local),
                "largest difference of weights": training(runs, local),
                "errors": errors(runs, client),
            }
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
