"""Training steps of this kit and of sentence-transformers, each in its own training loop.

The order of the rows is fixed beforehand, so that every variant has the same batches in the same
order: this kit's order of an epoch is a function of the seed, and the other variants follow it.
"""

from __future__ import annotations

import csv
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from variants.threads import pin


def batches(params: dict[str, Any], seed: int) -> list[list[list[str]]]:
    """Return the rows of every step, in the order of this kit's trainer."""
    from simcse_kit.training.batching.order import ShuffledOrder

    rows = _rows(params)
    order = ShuffledOrder(len(rows), seed)
    size, found = params["batch"], []
    for epoch in range(params["steps"] * size // len(rows) + 2):
        order.set_epoch(epoch)
        numbers = list(order)
        for start in range(0, len(numbers) - size + 1, size):
            found.append([rows[number % len(rows)] for number in numbers[start : start + size]])
    return found[: params["steps"]]


def _rows(params: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = json.loads(Path(params["rows"]).read_text(encoding="utf-8"))
    return rows


def one_seed_a_round(rounds: Any, losses: Callable[[int], list[float]]) -> None:
    """Report the losses of a whole run in every round, with seeds 1, 2 and so on."""
    rounds.ready()
    for seed in itertools.count(1):
        rounds.wait()
        rounds.done(losses=losses(seed))


class Turns(transformers.TrainerCallback):
    """Callback that pauses a trainer between two steps until the next round.

    A round is ``per_round`` steps, measured from the end of a step, so that it includes the work
    of the trainer between two steps.
    """

    def __init__(self, rounds: Any, per_round: int):
        self._rounds = rounds
        self._per_round = per_round

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._rounds.ready()
        self._rounds.wait()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step % self._per_round == 0:
            self._rounds.done()
            self._rounds.wait()


class Losses(transformers.TrainerCallback):
    """Callback that collects the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))


# ---------------------------------------------------------------------------------- this kit


def _our_config(params: dict[str, Any], seed: int, log_every: int) -> Any:
    from simcse_kit.config_files import load_config

    rows = _rows(params)
    triplets = len(rows[0]) > 1
    source = Path.cwd() / ("rows.csv" if triplets else "rows.txt")
    if triplets:
        with source.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["sent0", "sent1", "hard_neg"], *rows])
    else:
        source.write_text("".join(f"{row[0]}\n" for row in rows), encoding="utf-8")
    table: dict[str, Any] = {
        "model": {"name": params["model"]},
        "data": {"train": [str(source)], "max_length": params["max_length"]},
        "training": {
            "batch_size": params["batch"],
            "max_steps": params["steps"],
            "learning_rate": params["learning_rate"],
            "seed": seed,
            "log_every": log_every,
            "output": str(Path.cwd() / "ours"),
        },
        "evaluation": {"held_out": 0, "every": params["steps"]},
    }
    preset = "simcse-sup" if triplets else "simcse-unsup"
    return load_config(preset=preset, overrides=[table, params.get("config", {})])


def ours(params: dict[str, Any], rounds: Any) -> None:
    """Run ``train`` with the preset of the paper, changed by ``config``."""
    from simcse_kit import train

    pin()
    config = _our_config(params, seed=1, log_every=10)
    # Every trainer starts with these callbacks.
    transformers.trainer.DEFAULT_CALLBACKS.append(Turns(rounds, params["per_round"]))
    train(config, overwrite=True)


def our_curve(params: dict[str, Any], rounds: Any) -> None:
    """Report the losses of a whole run for each seed."""
    pin()
    one_seed_a_round(rounds, lambda seed: run_losses(params, seed))


def run_losses(params: dict[str, Any], seed: int) -> list[float]:
    """Train, and return the losses of a whole run."""
    from simcse_kit import train

    losses = Losses()
    transformers.trainer.DEFAULT_CALLBACKS.append(losses)
    train(_our_config(params, seed, log_every=1), overwrite=True)
    transformers.trainer.DEFAULT_CALLBACKS.remove(losses)
    return losses.values[: params["steps"]]


# ---------------------------------------------------------------------- sentence-transformers


def sentence_transformers(params: dict[str, Any], rounds: Any) -> None:
    """Run SentenceTransformerTrainer with MultipleNegativesRankingLoss.

    The model keeps its pooling, and a single text is its own positive.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    class InOrder(DefaultBatchSampler):
        def __init__(self, dataset: Any, **options: Any):
            options = {key: options[key] for key in ("batch_size", "drop_last")}
            super().__init__(SequentialSampler(dataset), **options)

    pin()
    rows = [row for batch in batches(params, seed=1) for row in batch]
    columns = list(zip(*rows, strict=True)) if len(rows[0]) > 1 else 2 * [[r[0] for r in rows]]
    names = ("anchor", "positive", "negative")
    model = SentenceTransformer(params["model"], device="cpu")
    model.max_seq_length = params["max_length"]
    arguments = Arguments(
        output_dir=str(Path.cwd() / "st"),
        per_device_train_batch_size=params["batch"],
        max_steps=params["steps"],
        learning_rate=params["learning_rate"],
        batch_sampler=InOrder,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=1,
    )
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(zip(names, map(list, columns), strict=False))),
        loss=losses.MultipleNegativesRankingLoss(model, scale=20.0),
        callbacks=[Turns(rounds, params["per_round"])],
    )
    trainer.train()
