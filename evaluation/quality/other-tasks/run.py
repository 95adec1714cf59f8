"""Compare retrieval, paraphrase and clustering scores with sentence-transformers and scikit-learn.

    cd evaluation/quality/other-tasks && python run.py MODEL --shared DIR > results.json

The tasks are made from public data outside this repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    InformationRetrievalEvaluator,
)
from sklearn.cluster import KMeans
from sklearn.metrics import v_measure_score

from simcse_kit import SentenceEncoder, evaluate

SOURCES = ("books", "imdb", "reuters", "wordnet", "multi30k", "nltk_webtext")


def captions(shared: Path) -> list[tuple[str, str]]:
    """Return pairs of captions of the same photo. No text occurs twice."""
    with (shared / "train/paraphrase/flickr8k_captions.csv").open(encoding="utf-8") as file:
        rows = [(row["sent0"].strip(), row["sent1"].strip()) for row in csv.DictReader(file)]
    seen: set[str] = set()
    kept = []
    for pair in rows:
        if not seen & set(pair) and pair[0] != pair[1]:
            seen |= set(pair)
            kept.append(pair)
    return kept[:5000]


def retrieval(pairs: list[tuple[str, str]], folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, side in (("queries", 0), ("corpus", 1)):
        lines = [
            json.dumps({"_id": f"{name[0]}{n}", "text": pair[side]}) for n, pair in enumerate(pairs)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [f"q{n}\tc{n}\t1" for n in range(len(pairs))]
    (folder / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    return folder


def paraphrases(shared: Path, path: Path) -> list[tuple[str, str, int]]:
    """Write MRPC's test rows, and the first 1,000 train rows as dev; return the test rows."""
    rows, test = ["split\tlabel\tsentence1\tsentence2"], []
    for name, split in (("train", "dev"), ("test", "test")):
        text = (shared / f"transfer/MRPC/msr_paraphrase_{name}.txt").read_text("utf-8-sig")
        for line in text.split("\n")[1 : 1001 if split == "dev" else None]:
            if line.strip():
                label, _, _, first, second = line.strip("\r").split("\t")
                rows.append(f"{split}\t{label}\t{first}\t{second}")
                test += [(first, second, int(label))] if split == "test" else []
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return test


def sources(shared: Path, path: Path) -> tuple[list[str], list[str]]:
    """Write 500 sentences from each of six sources with their labels; return both columns."""
    texts = (shared / "train/unsup_sentences.txt").read_text("utf-8").split("\n")
    labels = (shared / "train/unsup_sources.txt").read_text("utf-8").split("\n")
    chosen = [
        (text, label)
        for source in SOURCES
        for text, label in [
            (t, one)
            for t, one in zip(texts, labels, strict=True)
            if one == source and "\t" not in t
        ][:500]
    ]
    path.write_text(
        "text\tlabel\n" + "\n".join(f"{text}\t{label}" for text, label in chosen) + "\n",
        encoding="utf-8",
    )
    return [" ".join(text.split()) for text, _ in chosen], [label for _, label in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--shared", type=Path, required=True)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    pairs = captions(arguments.shared)
    folder = retrieval(pairs, work / "captions")
    test = paraphrases(arguments.shared, work / "mrpc.tsv")
    texts, labels = sources(arguments.shared, work / "sources.tsv")
    report = evaluate(
        SentenceEncoder.load(arguments.model),
        [
            f"retrieval:{folder}",
            f"paraphrase:{work / 'mrpc.tsv'}",
            f"clustering:{work / 'sources.tsv'}",
        ],
        geometry_on=None,
    )
    ours = {name: score.metrics | score.counts for name, score in report.beyond_sts.items()}

    model = SentenceTransformer(arguments.model)
    searched = InformationRetrievalEvaluator(
        {f"q{n}": pair[0] for n, pair in enumerate(pairs)},
        {f"c{n}": pair[1] for n, pair in enumerate(pairs)},
        {f"q{n}": {f"c{n}"} for n in range(len(pairs))},
        write_csv=False,
    )(model)
    judged = BinaryClassificationEvaluator(
        *map(list, zip(*test, strict=True)), write_csv=False, similarity_fn_names=["cosine"]
    )(model)
    rows = model.encode(texts).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    measured = [
        v_measure_score(labels, KMeans(len(SOURCES), n_init=1, random_state=seed).fit(rows).labels_)
        for seed in range(10)
    ]
    theirs = {
        "captions": {key: 100 * value for key, value in searched.items() if "cosine" in key},
        "mrpc": {"cosine_ap": 100 * judged["cosine_ap"]},
        "sources": {"v_measure": 100 * float(np.mean(measured))},
    }
    print(json.dumps({"simcse eval": ours, "others": theirs}, indent=2))


if __name__ == "__main__":
    main()
