"""Retrieval tasks in the BEIR layout, with exact or approximate search.

Documents are ranked by cosine, and in the order of the corpus if cosines are equal. Gains are
linear, as in trec_eval. A document with the id of the query is not ranked, as in BEIR (Thakur et
al. 2021, arXiv 2104.08663).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from simcse_kit.data.files import check_file
from simcse_kit.data.records import Records
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.embed import Embeddings, unit_rows
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks.base import LoadedTask
from simcse_kit.evaluation.tasks.files import OPTIONS, read_lines
from simcse_kit.metrics.faiss_index import faiss_top_k
from simcse_kit.metrics.search import require_faiss, top_k
from simcse_kit.utils.prompt_choice import Role

__all__ = ["RetrievalTask", "load_retrieval", "ranking_metrics", "search", "with_engine"]

DEPTH = 100
ENGINES = ("exact", "faiss")
"""Search engines of retrieval tasks."""
_RECALL_AT = (1, 10, 100)


@dataclass(frozen=True)
class RetrievalTask:
    """Documents, queries and relevance grades.

    Attributes:
        name: name of the task.
        documents: text by document id.
        queries: text by query id, for queries with a relevant document.
        grades: grade by query id and document id.
        engine: "exact", or "faiss" for approximate search.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]
    engine: str = "exact"

    def sentences(self) -> list[str]:
        """List all documents, then all queries."""
        return [*self.documents.values(), *self.queries.values()]

    def roles(self) -> dict[Role, list[str]]:
        """List the queries and the documents, for encoders that have prompts for them."""
        queries, documents = self.queries.values(), self.documents.values()
        return {"query": list(queries), "document": list(documents)}

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:
        """Compute means over queries of nDCG@10, MRR@10, Recall@1, @10, @100 and MAP@100, x100."""
        keys = list(self.documents)
        row = {key: number for number, key in enumerate(keys)}
        asked = list(self.queries)
        found, recall = search(
            vectors.of("query")(list(self.queries.values())),
            vectors.of("document")(list(self.documents.values())),
            DEPTH,
            skip=[row.get(query, -1) for query in asked],
            progress=progress,
            gpu=vectors.gpu,
            engine=self.engine,
        )
        each = [
            ranking_metrics([keys[hit] for hit in hits], self.grades[query])
            for query, hits in zip(asked, found, strict=True)
        ]
        metrics = {name: 100 * float(np.mean([one[name] for one in each])) for name in each[0]}
        counts = {"queries": len(asked), "documents": len(keys)}
        how = "exact search" if recall is None else f"{self.engine} (recall@10 {recall:.3f})"
        protocol = f"{how} by cosine, the first {DEPTH} ranked; mean over queries, x100"
        return TaskScore(self.name, "retrieval", "ndcg@10", metrics, counts, protocol)


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    skip: Sequence[int],
    progress: bool = False,
    gpu: torch.device | None = None,
    engine: str = "exact",
) -> tuple[list[list[int]], float | None]:
    """Find the documents nearest to each query by cosine.

    Args:
        queries: (q, d) float32 vectors.
        documents: (n, d) float32 vectors.
        k: number of documents for each query, if there are that many.
        skip: for each query, the row of a document to exclude, or -1.
        progress: show a progress bar.
        gpu: GPU that compares the vectors; None for the CPU. Approximate search uses the CPU.
        engine: "exact" or "faiss".

    Returns:
        For each query up to k rows of documents, nearest first; and recall@10 of approximate search
        on a sample of the documents, None for exact search.

    Raises:
        MissingExtraError: faiss is wanted and not installed.
    """
    # One more than k, because one may be excluded.
    most = min(k + 1, len(documents))
    asked, against = unit_rows(queries), unit_rows(documents)
    recall = None
    if engine == "faiss":
        (_, rows), recall = faiss_top_k(asked, against, most)
    else:
        _, rows = top_k(asked, against, most, progress=progress, gpu=gpu)
    ranked = [
        [row for row in found if row != own][:k]
        for found, own in zip(rows.tolist(), skip, strict=True)
    ]
    return ranked, recall


def with_engine(tasks: Mapping[str, LoadedTask], engine: str) -> dict[str, LoadedTask]:
    """Set the search engine of the retrieval tasks.

    Args:
        tasks: tasks by name.
        engine: "exact" or "faiss".

    Raises:
        ConfigError: the engine is unknown, or no task is a retrieval task.
        MissingExtraError: faiss is not installed.
    """
    if engine not in ENGINES:
        raise ConfigError(
            f"--engine {engine}: evaluation has the engines {' and '.join(ENGINES)}; give one of "
            "them"
        )
    if engine == "exact":
        return dict(tasks)
    require_faiss()
    if not any(isinstance(task, RetrievalTask) for task in tasks.values()):
        raise ConfigError(
            f"--engine {engine} is for retrieval tasks, and there is none; add retrieval:DIR to "
            "--tasks, or leave out --engine"
        )
    return {
        name: replace(task, engine=engine) if isinstance(task, RetrievalTask) else task
        for name, task in tasks.items()
    }


def ranking_metrics(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    """Compute the metrics of one query, in [0, 1].

    Args:
        ranked: document ids, best first.
        grades: grades of judged documents; a grade above 0 means relevant, and at least one is.

    Examples:
        >>> ranking_metrics(["b", "a"], {"a": 1})["mrr@10"]
        0.5
    """
    gains = [max(grades.get(key, 0), 0) for key in ranked]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    hits = [place for place, gain in enumerate(gains, start=1) if gain]
    found = {"ndcg@10": _dcg(gains[:10]) / _dcg(ideal[:10])}
    found["mrr@10"] = 1 / hits[0] if hits and hits[0] <= 10 else 0.0
    for k in _RECALL_AT:
        found[f"recall@{k}"] = sum(place <= k for place in hits) / len(ideal)
    found[f"map@{DEPTH}"] = sum(n / place for n, place in enumerate(hits, start=1)) / len(ideal)
    return found


def _dcg(gains: list[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def load_retrieval(folder: str | Path, split: str = "test") -> RetrievalTask:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``.

    The text of a document is its title, if it has one, and its text. Queries without a relevant
    document are left out.

    Raises:
        DataError: a file is missing, a line is wrong, an id is unknown, or no query remains.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{str(folder)!r} is not a folder; give one with corpus.jsonl, queries.jsonl and "
            f"qrels/{split}.tsv"
        )
    documents = _texts(folder / "corpus.jsonl", ("title", "text"))
    queries = _texts(folder / "queries.jsonl", ("text",))
    grades: dict[str, dict[str, int]] = {}
    path = check_file(folder / "qrels" / f"{split}.tsv")
    for line, row in enumerate(read_lines(path), start=1):
        fields = row.split("\t")
        if line == 1 and fields[-1].strip() == "score":
            continue
        if len(fields) != 3:
            raise DataError(
                f"{len(fields)} fields; expected query<TAB>document<TAB>grade", file=path, line=line
            )
        query, document, grade = (part.strip() for part in fields)
        for known, key, what in ((queries, query, "query"), (documents, document, "document")):
            if key not in known:
                raise DataError(
                    f"{what} {key!r} is missing in its file; correct the qrels or the file",
                    file=path,
                    line=line,
                )
        try:
            grades.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise DataError(
                f"grade {grade!r} is not a whole number", file=path, line=line
            ) from None
    kept = {query: of for query, of in grades.items() if max(of.values()) > 0}
    if not kept:
        raise DataError("no query has a document with a grade above 0; check the grades", file=path)
    asked = {query: queries[query] for query in kept}
    return RetrievalTask(folder.resolve().name, documents, asked, kept)


def _texts(path: Path, columns: tuple[str, ...]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line, row in Records(path, OPTIONS):
        key = str(row.get("_id", ""))
        text = " ".join(" ".join(str(row.get(column) or "") for column in columns).split())
        if not key or not text:
            raise DataError("'_id' or 'text' is missing or blank", file=path, line=line)
        if key in texts:
            raise DataError(f"id {key!r} occurs twice", file=path, line=line)
        texts[key] = text
    return texts
