"""Train one arm of the comparison with one seed, and score it once on the seven test sets.

    python evaluation/quality/mini-simcse/run.py --arm unsup --seed 1 --shared ../shared --work runs

Appends a row to results.csv. summarise.py prints the table of all rows.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().with_name("results.csv")
# Chosen on STS-B dev; LOG.md lists what was tried.
UNSUP = {"steps": 150, "batch": 64, "lr": 4e-4, "length": 32, "every": 50}
SUP = {"steps": 150, "batch": 64, "lr": 2e-4, "length": 32, "every": 50}


def ours(options: argparse.Namespace, name: str) -> str:
    from simcse_kit import train
    from simcse_kit.config_files import load_config
    from simcse_kit.utils.settings import parse_setting

    supervised = options.arm != "unsup"
    setting = SUP if supervised else UNSUP
    data = "data/train/nli/triplets.csv" if supervised else "data/train/unsup_sentences.txt"
    start = str(options.work / f"unsup-{options.seed}") if options.arm == "unsup-sup" else "mini"
    output = options.work / name
    config = load_config(
        preset="mini-sup" if supervised else "mini-unsup",
        overrides=[
            {
                "model": {"name": start},
                "data": {
                    "train": [str(options.shared / data)],
                    "max_length": setting["length"],
                },
                "training": {
                    "output": str(output),
                    "max_steps": setting["steps"],
                    "batch_size": setting["batch"],
                    "learning_rate": setting["lr"],
                    "seed": options.seed,
                },
                "evaluation": {
                    "dev": str(options.shared / "data/sts/raw"),
                    "every": setting["every"],
                },
            },
            *map(parse_setting, options.settings),
        ],
    )
    train(config, overwrite=True)
    return str(output)


def sentence_transformers(arm: str, seed: int, shared: Path, work: Path) -> str:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
        models,
    )
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    import simcse_kit
    from simcse_kit.evaluation.dev_set import DevSet

    setting = UNSUP if arm == "st-unsup" else SUP
    if arm == "st-unsup":
        text = (shared / "data/train/unsup_sentences.txt").read_text(encoding="utf-8")
        lines = text.strip().split("\n")
        rows = {"anchor": lines, "positive": lines}
    else:
        with (shared / "data/train/nli/triplets.csv").open(encoding="utf-8", newline="") as file:
            table = list(csv.reader(file))[1:]
        columns = ("anchor", "positive", "negative")
        rows = {name: [row[at] for row in table] for at, name in enumerate(columns)}
    mini = str(Path(simcse_kit.__file__).parent / "assets" / "mini")
    transformer = models.Transformer(mini, max_seq_length=setting["length"])
    model = SentenceTransformer(
        modules=[transformer, models.Pooling(256, pooling_mode="mean")], device="cpu"
    )
    dev = DevSet.load(shared / "data/sts/raw").pairs
    output = work / f"{arm}-{seed}"
    args = SentenceTransformerTrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=setting["steps"],
        per_device_train_batch_size=setting["batch"],
        learning_rate=setting["lr"],
        lr_scheduler_type="linear",
        warmup_steps=0,
        seed=seed,
        eval_strategy="steps",
        eval_steps=setting["every"],
        save_strategy="steps",
        save_steps=setting["every"],
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
        train_dataset=Dataset.from_dict(rows),
        loss=losses.MultipleNegativesRankingLoss(model),
        evaluator=EmbeddingSimilarityEvaluator(
            list(dev.sentences1), list(dev.sentences2), list(dev.gold / 5.0), name="dev"
        ),
    )
    trainer.train()
    # Trained at 32 tokens, tested at the encoder's own 64, as ours is.
    model.max_seq_length = 64
    model.save(str(output / "model"))
    return str(output / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arms = ("raw", "unsup", "sup", "unsup-sup", "st-unsup", "st-sup")
    parser.add_argument("--arm", choices=arms, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pooling", help="pooling of the arm raw")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="key=value")
    parser.add_argument(
        "--variant", default="", help="suffix of the arm's name in a run with --set"
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the encoders")
    options = parser.parse_args()

    from simcse_kit import SentenceEncoder, evaluate
    from simcse_kit.evaluation.dev_set import DevSet

    began = time.perf_counter()
    arm = f"raw-{options.pooling}" if options.arm == "raw" else options.arm + options.variant
    name = f"{arm}-{options.seed}"
    if options.arm == "raw":
        folder = "mini"
    elif options.arm.startswith("st-"):
        folder = sentence_transformers(options.arm, options.seed, options.shared, options.work)
    else:
        folder = ours(options, name)
    trained = time.perf_counter() - began
    encoder = SentenceEncoder.load(folder, pooling=options.pooling)
    report = evaluate(encoder, "sts", data=options.shared / "data/sts/raw", name=name)
    dev = DevSet.load(options.shared / "data/sts/raw").score(encoder)
    found = report.to_json()
    row = {"arm": arm, "seed": options.seed, "pooling": found["pooling"]}
    row |= {task: round(score["spearman"], 4) for task, score in found["tasks"].items()}
    row |= {"average": round(found["average"], 4), "dev": round(dev["spearman"], 4)}
    geometry = ("alignment", "uniformity", "mean_cosine", "dimension_std")
    row |= {measure: round(found[measure], 5) for measure in geometry}
    row["effective_rank"] = round(found["effective_rank"], 2)
    row |= {f"{task}_pearson": round(score["pearson"], 4) for task, score in found["tasks"].items()}
    row |= {"train_seconds": round(trained, 1), "threads": os.environ.get("OMP_NUM_THREADS")}
    row |= {package: found["versions"][package] for package in ("torch", "transformers")}
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, list(row), lineterminator="\n").writerow(row)
    print(name, "dev", round(dev["spearman"], 2), "average", round(report.average or 0, 2))


if __name__ == "__main__":
    main()
