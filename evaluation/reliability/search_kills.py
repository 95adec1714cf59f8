"""Kill the building and changing of a search index at random moments, and verify what is left.

    python evaluation/reliability/search_kills.py --kills 200 --json search-kills.json

Each round changes an index in a process that is forked from this one, so that no time is lost with
imports. The process is killed (SIGKILL) after a random part of the time that the change takes
undisturbed, or, every second time, right before a random operation on the file system: opening,
renaming, creating or removing a file or folder.
Then the whole index is read and its checksums compared: its documents must be those from before the
change or those after it, each must be found by its own text, and a reader that opened the index
before the change must still find what it found. The change is then repeated until it finishes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Documents = dict[str, str]
KINDS = ("index", "index --overwrite", "index add", "index remove")
OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""Audit events of Python before which a process may be killed."""
LINES = (REPOSITORY / "data/sentences.txt").read_text(encoding="utf-8").splitlines()


class Rounds:
    """Rounds of changes of one index.

    Args:
        folder: Folder of the index.
        seed: Seed of the changes and of the moments of the kills.
        engine: Search engine.
        precision: Number format of the vectors.
    """

    def __init__(self, folder: Path, seed: str, engine: str, precision: str):
        from simcse_kit import SentenceEncoder

        self.folder = folder
        self.draw = random.Random(seed)
        self.engine, self.precision = engine, precision
        self.encoder = SentenceEncoder.load("mini", device="cpu")
        self.documents: Documents = {}
        self.exists = False
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.made = 0

    def change(self) -> tuple[str, Callable[[], object], Documents]:
        """Draw the next change: its kind, its function, and the documents after it."""
        from simcse_kit.search import Document, IndexSettings, SearchIndex

        kind = self.draw.choices(KINDS, (0, 1, 4, 3))[0] if self.exists else "index"
        added = {}
        for _ in range(self.draw.choice((1, 20, 60))):
            self.made += 1
            added[str(self.made)] = f"{self.draw.choice(LINES)} {self.made}"
        rows = [Document(text, name) for name, text in added.items()]
        if kind == "index remove" and len(self.documents) > 1:
            gone = self.draw.sample(
                sorted(self.documents), self.draw.randint(1, len(self.documents) // 2)
            )
            left = {name: text for name, text in self.documents.items() if name not in gone}
            return kind, lambda: SearchIndex.load(self.folder).remove(gone), left
        if kind.startswith("index add") or kind == "index remove":
            both = {**self.documents, **added}
            return "index add", lambda: SearchIndex.load(self.folder, self.encoder).add(rows), both
        settings = IndexSettings(
            engine=self.engine, precision=self.precision, overwrite=self.exists
        )
        build = lambda: SearchIndex.build(self.encoder, rows, self.folder, settings)  # noqa: E731
        return kind, build, added

    def round(self, lasts: dict[str, tuple[float, int]], kills: int) -> None:
        """Make one change, which is killed until it finishes or enough kills have been made."""
        from simcse_kit.search import SearchIndex

        kind, function, after = self.change()
        # A local Milvus database serves one process at a time, so it has no other reader.
        read = self.exists and self.engine != "milvus"
        reader = SearchIndex.load(self.folder, self.encoder) if read else None
        queries = self.draw.sample(sorted(self.documents.values()), min(3, len(self.documents)))
        found = reader.search(queries) if reader else []
        # The third time, the change may finish; its time and operations are then known better.
        for attempt in count(1):
            killed = self.counts["kills"] < kills and attempt <= 2
            # A change of a new kind is first made undisturbed.
            most, operations = lasts.get(kind, (60.0, 0))
            wait, last = None, None
            if killed and operations and self.counts["kills"] % 2:
                last = self.draw.randint(1, round(1.2 * operations))
            elif killed and operations:
                wait = self.draw.uniform(0, 1.2) * most
            done = self._run(function, wait, last)
            state = self._state()
            if reader and reader.search(queries) != found:
                self.wrong.append(f"{kind}: the reader finds other documents")
            if done is not None:
                if state != after:
                    self.wrong.append(f"{kind}: a finished change is missing")
                lasts[kind] = done
                break
            self.counts["kills"] += 1
            self.counts["killed: before an operation" if last else "killed: at a time"] += 1
            self.counts[f"killed: {kind}"] += 1
            which = "new" if state == after else "old" if state == self._before() else "other"
            self.counts[f"left: {which} state"] += 1
            if which == "other":
                self.wrong.append(f"{kind}: another state")
            if which == "new":
                break
            if any(p.name.startswith(("segment-", "deleted-", ".new")) for p in self._strays()):
                self.counts["left: files of the change"] += 1
        self.documents, self.exists = after, True
        self.counts["changes"] += 1

    def _before(self) -> Documents | None:
        return self.documents if self.exists else None

    def _strays(self) -> list[Path]:
        """Return files and folders that the current state does not need."""
        from simcse_kit.search.manifest import MANIFEST, read_manifest

        if not self.folder.exists():
            return []
        names: set[str] = set()
        if (self.folder / MANIFEST).exists():
            names = {name.partition("/")[0] for name in read_manifest(self.folder).files}
        return [path for path in self.folder.iterdir() if path.name not in names]

    def _state(self) -> Documents | None:
        """Read the documents of the index, verify all files, and search for three of them."""
        from simcse_kit.search.manifest import MANIFEST

        if not (self.folder / MANIFEST).exists():
            return None
        seed = self.draw.random()
        documents, wrong = in_child(lambda: self._read(random.Random(seed)))
        self.wrong += wrong
        return documents

    def _read(self, draw: random.Random) -> tuple[Documents, list[str]]:
        from simcse_kit.search import SearchIndex

        wrong = []
        index = SearchIndex.load(self.folder, self.encoder)
        index.verify()
        texts = sorted(self.documents.values())
        hits = index.search([texts[0] if texts else "A dog."], len(index) or 1)[0]
        for hit in draw.sample(hits, min(3, len(hits))):
            first = index.search([hit.text], 1)[0][0]
            if first.id != hit.id or first.cosine < 0.999:
                wrong.append(f"{hit.id} is not found by its own text")
        return {hit.id: hit.text for hit in hits}, wrong

    def _run(
        self, function: Callable[[], object], wait: float | None, last: int | None
    ) -> tuple[float, int] | None:
        """Run a function in a forked process.

        Args:
            function: The function.
            wait: Seconds after which the process is killed.
            last: Number of the operation on the file system before which the process is killed.

        Returns:
            Its time in seconds and its number of operations; None if it was killed.
        """
        reading, writing = os.pipe()
        at = time.monotonic()
        child = os.fork()
        if child == 0:
            made = 0

            def hook(event: str, _: Any) -> None:
                nonlocal made
                if event in OPERATIONS:
                    made += 1
                    if made == last:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            try:
                function()
                os.write(writing, str(made).encode())
            except BaseException:  # the test fails below
                traceback.print_exc()
            os._exit(0)
        os.close(writing)
        ended = status = 0
        while not ended and (wait is None or time.monotonic() - at < wait):
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.0005)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            counted = pipe.read()
        assert counted or os.WIFSIGNALED(status), "the change has failed"
        return (time.monotonic() - at, int(counted)) if counted else None


def in_child(function: Callable[[], Any]) -> Any:
    """Return the result of a function that runs in a forked process, as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(function(), pipe)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    assert found, "the index cannot be read"
    return json.loads(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="exact", choices=("exact", "faiss", "milvus"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # a forked process has no other threads
    if given.engine == "faiss":
        import faiss

        faiss.omp_set_num_threads(1)
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    precisions = ("fp32", "int8") if given.engine == "exact" else ("fp32",)
    kills = given.kills // len(precisions)
    for precision in precisions:
        with TemporaryDirectory() as place:
            seed = f"{given.seed} {precision}"
            rounds = Rounds(Path(place, "index"), seed, given.engine, precision)
            lasts: dict[str, tuple[float, int]] = {}
            while rounds.counts["kills"] < kills:
                rounds.round(lasts, kills)
                if rounds.wrong:
                    break
                if rounds.draw.random() < 0.1:  # a new index
                    for path in sorted(rounds.folder.rglob("*"), reverse=True):
                        path.rmdir() if path.is_dir() else path.unlink()
                    rounds.documents, rounds.exists = {}, False
            names = {"engine": given.engine, "precision": precision}
            rows.append({**names, **rounds.counts, "wrong": rounds.wrong})
            print(json.dumps(rows[-1]), flush=True)
    totals = {
        "kills": sum(row["kills"] for row in rows),
        "wrong": sum(len(row["wrong"]) for row in rows),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(totals))
    if given.json:
        given.json.write_text(json.dumps(totals | {"rows": rows}, indent=1) + "\n")
    sys.exit(1 if totals["wrong"] else 0)


if __name__ == "__main__":
    main()
