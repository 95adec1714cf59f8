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

from simcse_kit.data.columns import check_columns
from simcse_kit.data.prepare.named_rows import reading
from simcse_kit.data.prepare.nearest_keys import Ranking
from simcse_kit.data.prepare.negative_selection import Mining, choose
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.prepare.summary import Summary
from simcse_kit.data.readers import OnBadRow, ReadReport, read_texts
from simcse_kit.errors import DataError, ModelError
from simcse_kit.metrics.search import require_faiss

__all__ = ["Encoder", "Pool", "Rows", "mine", "read_rows"]

# How many neighbours more than the ranks ask for are searched at first: a single text and those
# that it is the positive of, which have no rank. Where there are more, it is searched for again.
_PARTNERS = 8


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


@dataclass(frozen=True, slots=True)
class _Pair:
    """An anchor, its positive, and the number of the positive in the pool."""

    anchor: str
    positive: str
    number: int


class Pool:
    """Distinct texts, by their normal key, that negatives are taken from."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The number of ``text``; of texts with one normal key the first stands for all."""
        number = self._number.setdefault(normal_key(text), len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def find(self, text: str) -> int:
        """The number of ``text``, or -1."""
        return self._number.get(normal_key(text), -1)


def read_rows(
    file: str | Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
) -> Rows:
    """The rows of a training file: texts, pairs, or triplets, whose negatives are dropped.

    Raises:
        DataError: as :func:`~simcse_kit.data.readers.read_texts`, or no row is left.
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

    The positive of a single text is a near neighbour. Negatives come from the positives of all
    rows (from single texts: the texts) and from ``candidates``. A text with the normal key of the
    anchor, or of one that it makes a pair with in any row, is none, and has no rank. So the texts
    of a row that is written have different keys; a pair of equal texts, or a row for which no
    negative is left, is not written. All vectors are held in memory, 4 bytes a dimension.

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
    summary = Summary(str(target), read=len(rows.anchors))
    ranking = Ranking(
        vectors[: len(anchors)],
        vectors[len(anchors) :],
        search=mining.search,
        figures=summary.figures,
        progress=progress,
    )
    kept = _distinct(rows, partners, summary)
    if rows.positives is None:
        found = kept = _with_neighbours(kept, anchors, pool, ranking, mining, summary)
    else:
        found = _hardest(kept, anchors, ranking, summary) if mining.hard_positives else kept

    known = _known(kept, pool)
    excluded = {pair.anchor: known[normal_key(pair.anchor)] for pair in found}
    ranking.search(
        {anchors[text]: mining.ranks[1] + len(numbers) for text, numbers in excluded.items()}
    )
    chosen: list[tuple[_Pair, list[int]]] = []
    scores: list[tuple[float, float]] = []
    rng = random.Random(mining.seed)
    for pair in found:
        number, out = anchors[pair.anchor], excluded[pair.anchor]
        ranked = [each for each in ranking.best(number) if each[0] not in out]
        score = ranking.score(number, pair.number)
        negatives = choose(ranked, score, mining, rng, summary.figures)
        if not negatives:
            summary.leave_out("rows without a hard negative")
            continue
        chosen.append((pair, [key for key, _ in negatives]))
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


def _distinct(rows: Rows, partners: Sequence[int], summary: Summary) -> list[_Pair]:
    """The pairs of the rows, each once, without those of equal texts; a single text with itself."""
    first: dict[tuple[str, int], _Pair] = {}
    for row, (text, number) in enumerate(zip(rows.anchors, partners, strict=True)):
        positive = text if rows.positives is None else rows.positives[row]
        if rows.positives is not None and normal_key(text) == normal_key(positive):
            summary.leave_out("pairs of equal texts")
        elif (text, number) in first:
            summary.leave_out("rows given twice")
        else:
            first[text, number] = _Pair(text, positive, number)
    return list(first.values())


def _with_neighbours(
    texts: Sequence[_Pair],
    anchors: dict[str, int],
    pool: Pool,
    ranking: Ranking,
    mining: Mining,
    summary: Summary,
) -> list[_Pair]:
    """Single texts, each with the farthest of its near neighbours as positive."""
    deepest = max(mining.ranks[1], mining.positive_rank) + _PARTNERS
    ranking.search({anchors[text.anchor]: deepest for text in texts})
    pairs = []
    for text in texts:
        others = [each for each in ranking.best(anchors[text.anchor]) if each[0] != text.number]
        near = [
            key for key, score in others[: mining.positive_rank] if score >= mining.positive_score
        ]
        if near:
            pairs.append(_Pair(text.anchor, pool.texts[near[-1]], near[-1]))
        else:
            summary.leave_out("texts without a neighbour near enough to be a positive")
    return pairs


def _hardest(
    pairs: Sequence[_Pair], anchors: dict[str, int], ranking: Ranking, summary: Summary
) -> list[_Pair]:
    """Of each anchor's pairs the one that is least similar."""
    hardest: dict[str, tuple[float, _Pair]] = {}
    for pair in pairs:
        score = ranking.score(anchors[pair.anchor], pair.number)
        if pair.anchor not in hardest or score < hardest[pair.anchor][0]:
            hardest[pair.anchor] = score, pair
    if len(hardest) < len(pairs):
        summary.leave_out("easier positives", len(pairs) - len(hardest))
    return [pair for _, pair in hardest.values()]


def _known(pairs: Sequence[_Pair], pool: Pool) -> dict[str, set[int]]:
    """Normal key of a text -> itself and what it makes a pair with, either way round."""
    known: dict[str, set[int]] = defaultdict(set)
    for pair in pairs:
        key, number = normal_key(pair.anchor), pool.find(pair.anchor)
        known[key].add(pair.number)
        if number >= 0:
            known[key].add(number)
            known[normal_key(pair.positive)].add(number)
    return known


def _write(
    target: Path, chosen: Sequence[tuple[_Pair, list[int]]], texts: Sequence[str], most: int
) -> None:
    names = ["hard_neg"] if most == 1 else [f"hard_neg_{n}" for n in range(1, most + 1)]
    lists = ".jsonl" in target.suffixes
    with writing(target, ["sent0", "sent1", *names]) as writer:
        for pair, numbers in chosen:
            negatives = [texts[number] for number in numbers]
            record: dict[str, Any] = {"sent0": pair.anchor, "sent1": pair.positive}
            if lists:
                record["hard_negs"] = negatives
            else:
                record |= dict(zip(names, negatives, strict=False))
            writer.write(record)
