"""Hard negatives and hard positives, found with an encoder."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_kit.curation.choice import Mining, choose
from simcse_kit.curation.normal import normal_form
from simcse_kit.curation.output import check_output, writing
from simcse_kit.curation.records import reading
from simcse_kit.curation.search import Found, approximate_top_k, require_faiss, top_k
from simcse_kit.curation.summary import Summary
from simcse_kit.errors import DataError, ModelError
from simcse_kit.text.readers import OnBadRow, ReadReport, read_texts
from simcse_kit.text.tables import check_columns

__all__ = ["Encoder", "Pool", "Rows", "mine", "read_rows"]

_RECALL_ON = 200


class Encoder(Protocol):
    """What turns n texts into n unit vectors, such as a SentenceEncoder."""

    def encode(self, sentences: list[str], /, *, normalize: bool, progress: bool) -> Any:
        """Give an (n, d) array."""
        ...


@dataclass
class Rows:
    """Anchors, and their positives unless they are single texts."""

    anchors: list[str]
    positives: list[str] | None


class Pool:
    """Distinct texts, by their normal form, that negatives are taken from."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The number of ``text``; of texts with one normal form the first stands for all."""
        number = self._number.setdefault(normal_form(text), len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def find(self, text: str) -> int:
        """The number of ``text``, or -1."""
        return self._number.get(normal_form(text), -1)


def read_rows(
    file: str | Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
) -> Rows:
    """The rows of a training file: texts, pairs, or triplets, whose negatives are dropped.

    Raises:
        DataError: as :func:`~simcse_kit.text.readers.read_texts`, or no row is left.
    """
    report = ReadReport() if report is None else report
    anchors: list[str] = []
    positives: list[str] = []
    with reading([file]) as on_bytes:
        kind, texts = read_texts(
            file,
            columns=check_columns(columns),
            on_bad_row=on_bad_row,
            report=report,
            on_bytes=on_bytes,
        )
        for row in texts:
            anchors.append(row[0])
            if kind != "texts":
                positives.append(row[1])
    if not anchors:
        raise DataError(f"no row is left; skipped {report.summary()}", file=file)
    return Rows(anchors, None if kind == "texts" else positives)


def mine(
    encoder: Encoder,
    rows: Rows,
    output: str | Path,
    mining: Mining,
    *,
    candidates: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Write triplets: anchor, positive, and up to ``mining.negatives`` hard negatives.

    Negatives come from the positives of all rows (from single texts: the texts) and from
    ``candidates``. A text with the normal form of the anchor, or of one that it makes a pair with
    in any row, is none. A row for which none is left is not written. All vectors are held in
    memory, 4 bytes a dimension.

    Args:
        encoder: gives the vectors; best the one that is to be trained further.
        rows: what to find negatives for.
        output: .jsonl has a list a row, .csv and .tsv a column for each negative.
        mining: what is taken.
        candidates: more texts that negatives may be.
        overwrite: an existing ``output`` may be replaced.
        progress: bars on a terminal or in a notebook.

    Raises:
        ConfigError: the output cannot be written.
        DataError: there are fewer than two different texts, or no negative is found at all.
        MissingExtraError: faiss is asked for and not installed.
        ModelError: the encoder gives no finite vectors.
    """
    target = check_output(output, overwrite=overwrite, columns=3)
    if mining.search == "faiss":
        require_faiss()
    pool = Pool()
    partners = [pool.add(text) for text in rows.positives or rows.anchors]
    for text in candidates:
        pool.add(text)
    if len(pool.texts) < 2:
        raise DataError("all texts are the same; there is nothing to find negatives among")
    anchors = {text: number for number, text in enumerate(dict.fromkeys(rows.anchors))}
    vectors = _vectors(encoder, [*anchors, *pool.texts], progress)
    queries, keys = vectors[: len(anchors)], vectors[len(anchors) :]

    known = _known(rows, partners, pool)
    summary = Summary(str(target), read=len(rows.anchors))
    deepest = max(mining.ranks[1], mining.positive_rank if rows.positives is None else 0)
    depths = [min(len(pool.texts), deepest + len(known[normal_form(text)])) for text in anchors]
    found = _search(queries, keys, depths, mining, summary, progress)

    chosen: list[tuple[str, str, list[int]]] = []
    scores: list[tuple[float, float]] = []
    rng = random.Random(mining.seed)
    for row in _kept(rows, anchors, queries, keys, partners, mining, summary):
        text = rows.anchors[row]
        number = anchors[text]
        excluded = known[normal_form(text)]
        ranked = [
            (key, score)
            for score, key in zip(*(part.tolist() for part in found[number]), strict=True)
            if key >= 0 and key not in excluded
        ]
        if rows.positives is None:
            nearest = ranked[: mining.positive_rank]
            near = [each for each in nearest if each[1] >= mining.positive_score]
            if not near:
                summary.leave_out("texts without a neighbour near enough to be a positive")
                continue
            partner, score = near[-1]
            positive = pool.texts[partner]
        else:
            partner, positive = partners[row], rows.positives[row]
            score = float(queries[number] @ keys[partner])
        negatives = choose(ranked, score, mining, rng, summary.figures)
        if not negatives:
            summary.leave_out("rows without a hard negative")
            continue
        chosen.append((text, positive, [key for key, _ in negatives]))
        scores += [(score, negative) for _, negative in negatives]
    if not chosen:
        raise DataError(
            f"no hard negative is left for any of {len(rows.anchors)} rows "
            f"({_counts(summary.left_out | summary.figures)}); widen --ranks, or change the filter "
            "that passes over most"
        )
    _write(target, chosen, pool.texts, mining.negatives)
    summary.rows = len(chosen)
    positive_mean, negative_mean = np.array(scores, dtype=np.float64).mean(axis=0).tolist()
    summary.figures |= {
        "negatives": len(scores),
        "mean score of positives": positive_mean,
        "mean score of negatives": negative_mean,
    }
    return summary


def _counts(figures: dict[str, Any]) -> str:
    """What was left out or passed over, most first."""
    counted = sorted((-n, what) for what, n in figures.items() if isinstance(n, int))
    return ", ".join(f"{-n} {what}" for n, what in counted)


def _vectors(encoder: Encoder, texts: list[str], progress: bool) -> NDArray[np.float32]:
    vectors = np.asarray(encoder.encode(texts, normalize=True, progress=progress), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ModelError(
            f"the encoder gave vectors of shape {vectors.shape} for {len(texts)} texts, or some "
            "that are not finite"
        )
    return vectors


def _known(rows: Rows, partners: Sequence[int], pool: Pool) -> dict[str, set[int]]:
    """Normal form of a text -> itself and what it makes a pair with, either way round."""
    known: dict[str, set[int]] = defaultdict(set)
    for row, text in enumerate(rows.anchors):
        form, number = normal_form(text), pool.find(text)
        known[form] |= {number, partners[row]} - {-1}
        if rows.positives is not None and number >= 0:
            known[normal_form(rows.positives[row])].add(number)
    return known


def _search(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    depths: Sequence[int],
    mining: Mining,
    summary: Summary,
    progress: bool,
) -> dict[int, Found]:
    """Query -> scores and keys, at least as many of the best as its depth says."""
    if mining.search == "faiss":
        k = max(depths)
        scores, places = approximate_top_k(queries, keys, k)
        some = np.linspace(0, len(queries) - 1, min(_RECALL_ON, len(queries))).astype(np.int64)
        _, exact = top_k(queries[some], keys, k)
        shared = [len(np.intersect1d(*each)) for each in zip(exact, places[some], strict=True)]
        name = f"recall of the search on {len(some)} anchors"
        summary.figures[name] = float(np.mean(shared) / k)
        return {number: (scores[number], places[number]) for number in range(len(queries))}
    # An anchor with thousands of positives must not make the lists of all others as long.
    alike: dict[int, list[int]] = defaultdict(list)
    for number, depth in enumerate(depths):
        alike[depth.bit_length()].append(number)
    found: dict[int, Found] = {}
    for members in alike.values():
        k = max(depths[number] for number in members)
        scores, places = top_k(queries[members], keys, k, progress=progress)
        found |= {number: (scores[at], places[at]) for at, number in enumerate(members)}
    return found


def _kept(
    rows: Rows,
    anchors: dict[str, int],
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    partners: Sequence[int],
    mining: Mining,
    summary: Summary,
) -> Sequence[int]:
    """The rows to look at: a pair or text that occurs again once, and hard positives only."""
    first: dict[tuple[int, int], int] = {}
    for row, text in enumerate(rows.anchors):
        first.setdefault((anchors[text], partners[row]), row)
    again = len(rows.anchors) - len(first)
    if again:
        summary.leave_out("rows given twice", again)
    if rows.positives is None or not mining.hard_positives:
        return list(first.values())
    hardest: dict[int, tuple[float, int]] = {}
    for (anchor, partner), row in first.items():
        score = float(queries[anchor] @ keys[partner])
        if anchor not in hardest or score < hardest[anchor][0]:
            hardest[anchor] = (score, row)
    if len(hardest) < len(first):
        summary.leave_out("easier positives", len(first) - len(hardest))
    return [row for _, row in hardest.values()]


def _write(
    target: Path, chosen: Sequence[tuple[str, str, list[int]]], texts: Sequence[str], most: int
) -> None:
    names = ["hard_neg"] if most == 1 else [f"hard_neg_{n}" for n in range(1, most + 1)]
    lists = ".jsonl" in target.suffixes
    with writing(target, ["sent0", "sent1", *names]) as writer:
        for anchor, positive, numbers in chosen:
            negatives = [texts[number] for number in numbers]
            record: dict[str, Any] = {"sent0": anchor, "sent1": positive}
            if lists:
                record["hard_negs"] = negatives
            else:
                record |= dict(zip(names, negatives, strict=False))
            writer.write(record)
