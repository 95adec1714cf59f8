"""Measure the share of changed test sentences that the leak check finds, against brute force.

    python evaluation/quality/leaks/recall.py path/to/sts path/to/transfer

Writes recall.csv, a row for each kind of change, in per cent. The test sentences are those of the
seven STS tests in SentEval's form (tokenised, mostly lower case). The changed texts are the same
sentences in their published form (``raw``). The film reviews MR and SUBJ share no sentence with
these tests, so every match there is false.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import html
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from simcse_kit.evaluation.contamination.index import KINDS, LeakIndex
from simcse_kit.evaluation.tasks.load import load_tasks

SAMPLE = 2000
THRESHOLDS = (0.8, 0.7, 0.6, 0.5)
EDIT, MISSPELT = 0.9, 0.95
Change = Callable[[str, random.Random], str]
STOPS = (".", "!", "?", ";")
FILES = {
    "MR": ["rt-polarity.pos", "rt-polarity.neg"],
    "SUBJ": ["subj.objective", "subj.subjective"],
}
OTHERS = [
    "It was raining all day and nobody went out of the house.",
    "The committee meets again next month to look at the figures.",
    "Nobody had expected that the old bridge would hold for so long.",
    "She bought three apples and a loaf of bread on her way home.",
]


def sentences(tasks: dict[str, Any]) -> list[str]:
    return [
        text
        for parts in tasks.values()
        for part in parts
        for pair in zip(part.sentences1, part.sentences2, strict=True)
        for text in pair
    ]


def words_changed(change: Callable[[list[str], int, random.Random], list[str]]) -> Change:
    def changed(text: str, rng: random.Random) -> str:
        words = text.split()
        return " ".join(change(words, rng.randrange(len(words)), rng))

    return changed


def typos(count: int) -> Change:
    def changed(text: str, rng: random.Random) -> str:
        letters = list(text)
        places = [at for at, letter in enumerate(letters) if letter.isalpha()]
        for at in rng.sample(places, min(count, len(places))):
            letters[at] = rng.choice([c for c in "etaoinshrdlu" if c != letters[at].lower()])
        return "".join(letters)

    return changed


def inserted(character: str) -> Change:
    def changed(text: str, rng: random.Random) -> str:
        at = rng.randrange(1, max(2, len(text)))
        return text[:at] + character + text[at:]

    return changed


def appended(text: str, rng: random.Random) -> str:
    return f"{text if text.endswith(STOPS) else text + '.'} {rng.choice(OTHERS)}"


def prefixed(text: str, rng: random.Random) -> str:
    return f"{rng.choice(OTHERS)} {text}"


def treebank(text: str, _: random.Random) -> str:
    text = re.sub(r'"([^"]*)"', r"`` \1 ''", text)
    for bracket, name in (("(", "-LRB-"), (")", "-RRB-"), ("[", "-LSB-"), ("]", "-RSB-")):
        text = text.replace(bracket, f" {name} ")
    return re.sub(r"(\w)n't\b", r"\1 n't", text)


def curly(text: str, _: random.Random) -> str:
    return re.sub(r'"([^"]*)"', "\u201c\\1\u201d", text).replace("'", "\u2019")


def without_accents(text: str, _: random.Random) -> str:
    split = unicodedata.normalize("NFD", text)
    return "".join(c for c in split if not unicodedata.combining(c))


UNCHANGED = "none: raw against tokenised"
CHANGES: dict[str, Change] = {
    UNCHANGED: lambda text, _: text,
    "upper case": lambda text, _: text.upper(),
    "Treebank quotes, brackets, n't": treebank,
    "curly quotes": curly,
    "currency sign left out": lambda text, _: re.sub(r"[$\u00a3\u20ac] ?(?=\d)", "", text),
    "space after a currency sign": lambda text, _: re.sub(r"([$\u00a3\u20ac])(?=\d)", r"\1 ", text),
    "1,000 as 1000": lambda text, _: re.sub(r"(?<=\d),(?=\d{3})", "", text),
    "HTML entities": lambda text, _: html.escape(text),
    "HTML entities, escaped twice": lambda text, _: html.escape(html.escape(text)),
    "zero-width space": inserted("\u200b"),
    "soft hyphen": inserted("\u00ad"),
    "byte order mark": lambda text, _: "\ufeff" + text,
    "emoji appended": lambda text, _: text + " \U0001f642",
    "accents as combining marks": lambda text, _: unicodedata.normalize("NFD", text),
    "accents left out": without_accents,
    "one typo": typos(1),
    "three typos": typos(3),
    "a word inserted": words_changed(lambda w, at, _: [*w[:at], "really", *w[at:]]),
    "a word left out": words_changed(lambda w, at, _: w[:at] + w[at + 1 :] or w),
    "a word replaced": words_changed(lambda w, at, _: [*w[:at], "something", *w[at + 1 :]]),
    "a sentence appended": appended,
    "a sentence before": prefixed,
    "sentences on both sides": lambda text, rng: prefixed(appended(text, rng), rng),
    "a sentence appended, no stop": lambda text, rng: (
        f"{text.rstrip('.!?; ')} {rng.choice(OTHERS)}"
    ),
    "a sentence appended, and a typo": lambda text, rng: appended(typos(1)(text, rng), rng),
}


class BruteForce:
    """Comparison of every text with every test sentence, without an index."""

    def __init__(self, texts: list[str]):
        self.numbers: dict[Any, int] = {}
        self.known = self.matrix(texts)
        self.sizes = np.asarray(self.known.sum(axis=1)).ravel()

    def matrix(self, texts: list[str]) -> csr_matrix:
        rows, columns = [], []
        for row, text in enumerate(texts):
            for piece in shingles(text):
                rows.append(row)
                columns.append(self.numbers.setdefault(piece, len(self.numbers)))
        shape = (len(texts), 2_000_000)
        return csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)

    def near(self, texts: list[str], threshold: float) -> set[tuple[int, int]]:
        """Return the pairs (text, test sentence) whose Jaccard similarity reaches the threshold."""
        own = self.matrix(texts)
        sizes = np.asarray(own.sum(axis=1)).ravel()
        shared = (own @ self.known.T).tocoo()
        similarity = shared.data / (sizes[shared.row] + self.sizes[shared.col] - shared.data)
        take = similarity >= threshold
        return set(zip(shared.row[take].tolist(), shared.col[take].tolist(), strict=True))


def shingles(text: str) -> set[tuple[str, ...]]:
    from simcse_kit.data.prepare.normalize import sentence_words

    words = [word for part in sentence_words(text) for word in part]
    return set(pairwise(words)) or {(word,) for word in words}


def similarities(one: str, test: str) -> tuple[float, float, float]:
    """Return Jaccard, containment and edit similarity of a changed text and its test sentence."""
    from simcse_kit.data.prepare.normalize import letters_key

    own, theirs = shingles(one), shingles(test)
    shared = len(own & theirs)
    jaccard = shared / max(1, len(own | theirs))
    edit = difflib.SequenceMatcher(
        None, letters_key(one), letters_key(test), autojunk=False
    ).ratio()
    return jaccard, shared / max(1, len(theirs)), edit


def measure(sts: Path, transfer: Path) -> list[dict[str, Any]]:
    tested = sentences(load_tasks("sts", str(sts)))
    raw = sentences(load_tasks("sts", str(sts / "raw")))
    assert len(tested) == len(raw)
    pairs = list(dict.fromkeys(zip(tested, raw, strict=True)))
    indexes = {threshold: LeakIndex({"sts": tested}, threshold) for threshold in THRESHOLDS}
    index = indexes[THRESHOLDS[0]]
    number = {text: at for at, text in enumerate(index.sentences)}
    brute = BruteForce(index.sentences)
    table: list[dict[str, Any]] = []
    for name, change in CHANGES.items():
        rng = random.Random(0)
        changed = [(change(text, rng), test) for test, text in pairs]
        if name != UNCHANGED:
            changed = [
                each for each, (_, text) in zip(changed, pairs, strict=True) if each[0] != text
            ]
            changed = rng.sample(changed, min(SAMPLE, len(changed)))
        kinds = Counter[str]()
        found = Counter[float]()
        for text, test in changed:
            for threshold, each in indexes.items():
                kind = next((h.kind for h in each.find(text) if h.sentence == number[test]), None)
                found[threshold] += kind is not None
                if each is index and kind is not None:
                    kinds[kind] += 1
        row: dict[str, Any] = {"change": name, "texts": len(changed)}
        row |= {f"found_{t:g}": round(100 * found[t] / len(changed), 2) for t in THRESHOLDS}
        row |= {kind: round(100 * kinds[kind] / len(changed), 2) for kind in KINDS}
        part = rng.sample(changed, min(SAMPLE, len(changed)))
        measured = np.array([similarities(*each) for each in part])
        least = {"word_pairs_0.8": 0.8, "contained_0.9": 0.9, "edits_0.9": EDIT}
        row |= {
            column: round(100 * float((measured[:, at] >= limit).mean()), 2)
            for at, (column, limit) in enumerate(least.items())
        }
        texts = [text for text, _ in part]
        exact = brute.near(texts, THRESHOLDS[0])
        ours = {
            (at, hit.sentence)
            for at, text in enumerate(texts)
            for hit in index.find(text)
            if hit.kind != "contained"
        }
        row |= {"near_pairs": len(exact), "near_pairs_missed": len(exact - ours)}
        row["near_pairs_too_many"] = sum(
            similarities(texts[at], index.sentences[other])[2] < MISSPELT
            for at, other in ours - exact
        )
        table.append(row)
    for name, files in FILES.items():
        lines = [
            line.strip()
            for file in files
            for line in (transfer / name / file).read_text("latin-1").split("\n")
            if line.strip()
        ]
        false = {t: sum(bool(indexes[t].find(line)) for line in lines) for t in THRESHOLDS}
        row = {"change": f"unrelated text: {name}", "texts": len(lines)}
        table.append(row | {f"found_{t:g}": round(100 * false[t] / len(lines), 4) for t in false})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sts", type=Path, help="STS data in the SentEval layout")
    parser.add_argument("transfer", type=Path, help="SentEval's transfer tasks")
    options = parser.parse_args()
    table = measure(options.sts, options.transfer)
    target = Path(__file__).with_name("recall.csv")
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
