"""Adapt a finished encoder to domain text with one recipe and seed; score the gain and the loss.

    python evaluation/quality/adapt/run.py --recipe simcse:1e-5 --domain medical --seed 1 \
        --pairs path/to/paraphrase --sts path/to/sts --work runs
    python evaluation/quality/adapt/run.py --summarise      # mean and deviation over the seeds

Appends a row to results.csv. The training text is up to --sentences sentences of 60 % of the pairs
of a domain, without their pairing. The next 20 % choose a recipe, together with STS-B dev, and the
last 20 % are read with --test only. The score of a domain is nDCG@10: the first sentence of a pair
is the query, the second sentences of the part are the documents. The last state is scored, whatever
it is, except by the recipe `default`, which is `simcse train TEXT --model small` and keeps what it
chooses.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
from pathlib import Path
from typing import Any

from scipy.cluster.hierarchy import DisjointSet

RESULTS = Path(__file__).resolve().with_name("results.csv")
DOMAINS = {
    "medical": "medical_questions.csv",
    "definitions": "parade_definitions.csv",
    "climate": "climate_fever_supports.csv",
}
Pairs = list[tuple[str, str]]


def settings(recipe: str, start: str) -> dict[str, Any]:
    """Read a recipe: `simcse:RATE`, or `distil:RATE:WEIGHT` with the weight of SimCSE's loss."""
    kind, rate, *weight = recipe.split(":")
    common = {
        "data.max_length": 128,
        "training.learning_rate": float(rate),
        "evaluation.held_out": 0,
    }
    if kind == "simcse":
        return common | {"method.name": "simcse", "method.head": "none"}
    return common | {
        "method.name": "distill",
        "method.teachers": [start],
        "method.contrast_weight": float(weight[0]),
    }


def split(pairs: Pairs) -> tuple[Pairs, Pairs, Pairs]:
    """Divide pairs into 60, 20 and 20 %; pairs that share a sentence stay together."""
    linked = DisjointSet(text for pair in pairs for text in pair)
    for pair in pairs:
        linked.merge(*pair)
    groups: dict[str, Pairs] = {}
    for pair in pairs:
        groups.setdefault(linked[pair[0]], []).append(pair)
    order = sorted(groups)
    random.Random(1).shuffle(order)
    shuffled = [pair for key in order for pair in groups[key]]
    parts: tuple[Pairs, Pairs, Pairs] = ([], [], [])
    for key in order:
        done = sum(map(len, parts)) / len(shuffled)
        parts[(done >= 0.6) + (done >= 0.8)].extend(groups[key])
    return parts


def ndcg(encoder: Any, pairs: Pairs) -> float:
    """Compute nDCG@10 × 100 of finding the second sentence of each pair."""
    from simcse_kit import evaluate
    from simcse_kit.evaluation.tasks.retrieval import RetrievalTask

    documents = {
        text: f"d{number}" for number, text in enumerate(dict.fromkeys(b for _, b in pairs))
    }
    queries = {text: f"q{number}" for number, text in enumerate(dict.fromkeys(a for a, _ in pairs))}
    relevant: dict[str, dict[str, int]] = {}
    for query, document in pairs:
        relevant.setdefault(queries[query], {})[documents[document]] = 1
    task = RetrievalTask(
        "domain",
        {key: text for text, key in documents.items()},
        {key: text for text, key in queries.items()},
        relevant,
    )
    return float(evaluate(encoder, {"domain": task}).beyond_sts["domain"].metrics["ndcg@10"])


def summarise() -> None:
    """Print the mean and deviation over the seeds of each recipe and domain."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ("recipe", "domain", "epochs")), []).append(row)
    scores = ("stsb_dev", "domain_dev", "domain_test")
    print(f"| recipe | domain | epochs | seeds | {' | '.join(scores)} |\n{'|---' * 7}|")
    for group, members in groups.items():
        cells = []
        for score in scores:
            values = [float(row[score]) for row in members if row[score]]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
        print(f"| {' | '.join(group)} | {len(members)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summarise", action="store_true", help="print the table of all rows")
    parser.add_argument("--recipe", help="start, default, simcse:RATE or distil:RATE:WEIGHT")
    parser.add_argument("--domain", choices=tuple(DOMAINS))
    parser.add_argument("--start", default="small", help="the encoder to adapt")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=2000, help="most sentences of training")
    parser.add_argument("--test", action="store_true", help="read the last 20 %% too")
    parser.add_argument("--pairs", type=Path, help="folder with the files of pairs")
    parser.add_argument("--sts", type=Path, help="folder with the STS tasks in the SentEval layout")
    parser.add_argument("--work", type=Path, help="folder for texts and encoders")
    options = parser.parse_args()
    if options.summarise:
        summarise()
        return
    if None in (options.recipe, options.domain, options.pairs, options.sts, options.work):
        parser.error("--recipe, --domain, --pairs, --sts and --work are needed")

    from simcse_kit import SentenceEncoder, train
    from simcse_kit.evaluation.dev_set import DevSet

    with (options.pairs / DOMAINS[options.domain]).open(encoding="utf-8", newline="") as file:
        pairs = [(row["sent0"], row["sent1"]) for row in csv.DictReader(file)]
    text, dev, test = split(pairs)
    folder, improved = options.start, None
    if options.recipe != "start":
        options.work.mkdir(parents=True, exist_ok=True)
        name = f"{options.recipe.replace(':', '_')}-{options.domain}-{options.seed}"
        source = options.work / f"{name}.txt"
        sentences = dict.fromkeys(" ".join(sentence.split()) for pair in text for sentence in pair)
        chosen = list(sentences)[: options.sentences]
        source.write_text("\n".join(chosen) + "\n", encoding="utf-8")
        own = {} if options.recipe == "default" else settings(options.recipe, options.start)
        output = options.work / name
        result = train(
            source,
            preset=None if options.recipe == "default" else "none",
            model=options.start,
            seed=options.seed,
            output=output,
            overwrite=True,
            report=False,
            settings=own
            if options.recipe == "default"
            else {"training.epochs": options.epochs} | own,
        )
        folder, improved = str(result.output), result.improved
    encoder = SentenceEncoder.load(folder)
    stsb = DevSet.load(options.sts / "STS" / "STSBenchmark" / "sts-dev.csv")
    row: dict[str, Any] = {
        "recipe": options.recipe,
        "domain": options.domain,
        "start": options.start,
        "epochs": options.epochs,
        "seed": options.seed,
        "improved": improved,
        "stsb_dev": round(stsb.score(encoder)["spearman"], 2),
        "domain_dev": round(ndcg(encoder, dev), 2),
        "domain_test": round(ndcg(encoder, test), 2) if options.test else "",
    }
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
