"""Mining of hard negatives and hard positives with an encoder."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.prepare.negative_selection import Mining, Ranking, choose
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import Summary, check_output, writing
from simcse_kit.data.prepare.text_vectors import UnitEncoder, vectors_of
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.readers import read_texts
from simcse_kit.data.records import reading_progress
from simcse_kit.data.remote import local_file
from simcse_kit.errors import DataError
from simcse_kit.metrics.search import gpu_of, require_faiss

__all__ = ["Anchors", "Pool", "UnitEncoder", "mine", "read_anchors"]

# Extra neighbours of the first search: a single text and the texts whose positive it is have no
# rank. If there are more than these, the search is repeated.
_PARTNERS = 8


@dataclass
class Anchors:
    """Texts to find negatives for, with the positives of pairs.

    Args:
        texts: The anchors.
        positives: Their positives, or None for single texts.
    """

    texts: list[str]
    positives: list[str] | None


@dataclass(frozen=True, slots=True)
class _Pair:
    """An anchor, its positive, and the number of the positive in the pool."""

    anchor: str
    positive: str
    number: int


class Pool:
    """Texts that negatives are chosen from, distinct by their normal keys."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._number: dict[str, int] = {}

    def add(self, text: str) -> int:
        """Add a text, and give its number; texts with the same normal key share one."""
        number = self._number.setdefault(normal_key(text), len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def find(self, text: str) -> int:
        """Return the number of a text, or -1."""
        return self._number.get(normal_key(text), -1)


def read_anchors(
    file: str | Path, options: ReadOptions = DEFAULTS, *, report: ReadReport | None = None
) -> Anchors:
    """Read the rows of a training file: texts, pairs, or triplets, whose negatives are dropped.

    Raises:
        DataError: As :func:`~simcse_kit.data.readers.read_texts`, the rows are graded pairs, or no
            row is left.
    """
    report = ReadReport() if report is None else report
    anchors: list[str] = []
    positives: list[str] = []
    file = local_file(file)
    with reading_progress([file]) as on_bytes:
        kind, texts = read_texts(file, options, report=report, on_bytes=on_bytes)
        if kind == "labelled":
            raise DataError(
                "graded pairs are not all positives; write the positive pairs to another file, or "
                "mine for single texts, such as --columns sentence1",
                file=file,
            )
        for row in texts:
            anchors.append(row[0])
            if kind != "texts":
                positives.append(row[1])
    if not anchors:
        raise DataError(f"no row is left; skipped {report.summary()}", file=file)
    return Anchors(anchors, None if kind == "texts" else positives)


def mine(
    encoder: UnitEncoder,
    rows: Anchors,
    output: str | Path,
    mining: Mining,
    *,
    candidates: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Write triplets: anchor, positive, and up to ``mining.negatives`` hard negatives.

    The positive of a single text is a near neighbour. Negatives are chosen among the positives of
    all rows (or the single texts) and ``candidates``. Texts with the normal key of the anchor, or
    of a text paired with it in any row, are not negatives and have no rank. Pairs of equal texts,
    and rows without a negative, are not written. All vectors are held in memory, 4 bytes per
    dimension.

    Args:
        encoder: Encoder of the texts, best the one to be trained further.
        rows: Anchors to find negatives for.
        output: The file to write; .jsonl has a list of negatives, .csv and .tsv a column for each.
        mining: Rules for mining.
        candidates: Further texts that negatives are chosen from.
        overwrite: Whether an existing ``output`` may be replaced.
        progress: Whether to show progress bars on a terminal or in a notebook.

    Raises:
        ConfigError: The output cannot be written.
        DataError: There are fewer than two different texts, or no negative is found.
        MissingExtraError: faiss is requested and not installed.
        ModelError: The encoder gives vectors of a wrong shape, or that are not finite.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> class Angles:
        ...     degrees = {"A cat": 0, "Cats.": 10, "A dog": 60, "Dogs.": 75}
        ...     def encode(self, sentences, *, normalize, progress):
        ...         angles = np.radians([self.degrees[sentence] for sentence in sentences])
        ...         return np.stack([np.cos(angles), np.sin(angles)], axis=1)
        >>> anchors = Anchors(["A cat", "A dog"], ["Cats.", "Dogs."])
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "triplets.csv")
        ...     summary = mine(Angles(), anchors, path, Mining())
        ...     print(path.read_text())
        sent0,sent1,hard_neg
        A cat,Cats.,Dogs.
        A dog,Dogs.,Cats.
        <BLANKLINE>
    """
    target = check_output(output, overwrite=overwrite, columns=3)
    if mining.search == "faiss":
        require_faiss()
    pool = Pool()
    partners = [pool.add(text) for text in rows.positives or rows.texts]
    for text in candidates:
        pool.add(text)
    if len(pool.texts) < 2:
        raise DataError("all texts are the same; negatives need at least two different texts")
    anchors = {text: number for number, text in enumerate(dict.fromkeys(rows.texts))}
    vectors = vectors_of(
        encoder, list(anchors), pool.texts, mining.prompts, rows.positives is not None, progress
    )
    summary = Summary(str(target), read=len(rows.texts))
    ranking = Ranking(
        vectors[: len(anchors)],
        vectors[len(anchors) :],
        mining=mining,
        figures=summary.figures,
        progress=progress,
        gpu=gpu_of(encoder),
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
            f"no hard negative is left for any of {len(rows.texts)} rows "
            f"({_counts(summary.left_out | summary.figures)}); give a wider range with --ranks, or "
            "change the filter that rejects most neighbours"
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
    """List the counts, largest first."""
    counted = sorted((-n, what) for what, n in figures.items() if isinstance(n, int))
    return ", ".join(f"{-n} {what}" for n, what in counted)


def _distinct(rows: Anchors, partners: Sequence[int], summary: Summary) -> list[_Pair]:
    """Return the distinct pairs of different texts; a single text is paired with itself."""
    first: dict[tuple[str, int], _Pair] = {}
    for row, (text, number) in enumerate(zip(rows.texts, partners, strict=True)):
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
    """Pair single texts with the farthest of their near neighbours."""
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
    """Keep the least similar pair of each anchor."""
    hardest: dict[str, tuple[float, _Pair]] = {}
    for pair in pairs:
        score = ranking.score(anchors[pair.anchor], pair.number)
        if pair.anchor not in hardest or score < hardest[pair.anchor][0]:
            hardest[pair.anchor] = score, pair
    if len(hardest) < len(pairs):
        summary.leave_out("easier positives", len(pairs) - len(hardest))
    return [pair for _, pair in hardest.values()]


def _known(pairs: Sequence[_Pair], pool: Pool) -> dict[str, set[int]]:
    """Return the numbers of each text and of the texts paired with it, by normal key."""
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
