"""Scoring, checkpoints and callbacks, apart from whole runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState

from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.callbacks import MethodState, MetricsFile, ProgressBar, history_rows
from simcse_kit.training.selection import batches_of, dev_scorer, held_out_loss, loss_scorer
from simcse_kit.training.trainer import ContrastiveTrainer
from tests.small_data import sentences


@pytest.fixture
def method(tiny_encoder_dir: Path) -> SimCSE:
    torch.manual_seed(0)
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    return SimCSE(encoder, SimCSEConfig()).train()


def batches(method: SimCSE, size: int = 4) -> list[Batch]:
    rows = [Example((text,)) for text in sentences(12)]
    return batches_of(rows, size, Collator(method.encoder.tokenize, 0, (0,)))


class Constant(nn.Module):
    """A method whose loss is a number."""

    def __init__(self, loss: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.loss = loss

    def forward(self, **_: Tensor) -> MethodOutput:
        return MethodOutput(loss=self.weight + self.loss)


# ------------------------------------------------------------------ scoring


def test_held_out_loss_is_a_pure_function(method: SimCSE) -> None:
    held = batches(method)
    method.eval()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = held_out_loss(method, held, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert not method.training
    assert held_out_loss(method.train(), held, seed=1) == first
    assert method.training
    assert held_out_loss(method, held, seed=2) != first


def test_held_out_loss_has_dropout(method: SimCSE) -> None:
    # by hand: the mean of the batches' losses in training mode, drawn one after the other
    held = batches(method)
    torch.manual_seed(3)
    with torch.no_grad():
        losses = [float(method(**vars(batch)).loss) for batch in held]
    assert loss_scorer(held, 3)(method) == {"dev_loss": pytest.approx(sum(losses) / 3)}
    assert len(losses) == 3


def test_divergence_is_an_error() -> None:
    for loss in (math.nan, math.inf):
        with pytest.raises(ModelError, match="training has diverged"):
            held_out_loss(cast(Method, Constant(loss)), [Batch(*[torch.zeros(2, 1)] * 4)], seed=0)


def test_held_out_batches_are_full(method: SimCSE) -> None:
    assert [batch.shape[0] for batch in batches(method, 5)] == [5, 5]
    assert [batch.shape[0] for batch in batches(method, 50)] == [12]
    assert batches(method, 1) == []


def test_undefined_dev_scores(method: SimCSE) -> None:
    scores = {"spearman": math.nan, "alignment": math.nan, "uniformity": -1.0}
    dev = SimpleNamespace(score=lambda _: scores)
    assert dev_scorer(cast(Any, dev))(method) == {"dev_uniformity": -1}


# ------------------------------------------------------------------ checkpoints


def bare_trainer(method: Method) -> ContrastiveTrainer:
    trainer = ContrastiveTrainer.__new__(ContrastiveTrainer)
    trainer._method = method
    return trainer


def test_a_checkpoint_holds_the_method_with_its_head(
    method: SimCSE, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    bare_trainer(method)._save(str(tmp_path / "c"))
    torch.manual_seed(9)
    other = SimCSE(SentenceEncoder.load(tiny_encoder_dir, pooling="mean"), SimCSEConfig())
    assert not torch.equal(other.head.linear.weight, method.head.linear.weight)
    bare_trainer(other)._load_from_checkpoint(str(tmp_path / "c"))
    mine, theirs = method.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_damaged_checkpoint_is_named(method: SimCSE, tmp_path: Path) -> None:
    trainer = bare_trainer(method)
    trainer._save(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"checkpoint .*model\.safetensors cannot be read"):
        trainer._load_from_checkpoint(str(tmp_path))


def test_a_checkpoint_that_lacks_a_tensor_is_refused(method: SimCSE, tmp_path: Path) -> None:
    trainer = bare_trainer(method)
    head, method.head = method.head, None
    trainer._save(str(tmp_path))
    method.head = head
    with pytest.raises(ModelError, match=r"Missing key.*head\.linear\.weight"):
        trainer._load_from_checkpoint(str(tmp_path))


# ------------------------------------------------------------------ callbacks


def test_history_leaves_the_summary_out() -> None:
    log = [{"eval_dev_loss": 1.0, "step": 0}, {"train_runtime": 3.0, "step": 9}]
    assert history_rows(log) == [{"dev_loss": 1.0, "step": 0}]


def test_metrics_file_follows_the_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("left by a run that went on for longer\n", encoding="utf-8")
    metrics = MetricsFile(path)
    state, control = TrainerState(log_history=[{"step": 1}]), TrainerControl()
    args = cast(Any, None)
    metrics.on_train_begin(args, state, control)
    for step in (2, 3):
        state.log_history.append({"step": step})
        metrics.on_log(args, state, control)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["step"] for line in lines if line] == [1, 2, 3]


def test_the_method_is_told_of_its_progress() -> None:
    told: list[float] = []
    callback = MethodState(cast(Method, SimpleNamespace(after_step=told.append)))
    for step in (1, 4):
        callback.on_step_end(
            cast(Any, None), TrainerState(global_step=step, max_steps=4), TrainerControl()
        )
    assert told == [0.25, 1.0]


def test_the_bar_shows_the_loss_beside_ln_b(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar:
        def __init__(self, **options: Any):
            self.n = options["initial"]
            self.total = options["total"]
            self.desc = options["desc"]
            self.shown: dict[str, str] = {}
            self.closed = False

        def update(self, count: int) -> None:
            self.n += count

        def set_postfix(self, shown: dict[str, str], refresh: bool) -> None:
            assert not refresh  # drawn at the next step anyway
            self.shown = dict(shown)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("simcse_kit.training.callbacks.progress_bar", Bar)
    bar = ProgressBar(8, "7 negatives per anchor")
    args, control = cast(Any, None), TrainerControl()
    bar.on_train_begin(args, TrainerState(global_step=2, max_steps=5), control)
    bar.on_step_end(args, TrainerState(global_step=3, max_steps=5), control)
    bar.on_log(args, TrainerState(), control, logs={"loss": 1.23456, "ln_batch": math.log(8)})
    bar.on_log(args, TrainerState(), control, logs={"eval_dev_spearman": 76.543})
    bar.on_train_end(args, TrainerState(), control)
    drawn = bar._bar
    assert (drawn.n, drawn.total, drawn.closed) == (24, 40, True)
    assert drawn.desc == "train (7 negatives per anchor)"
    assert drawn.shown == {"loss": "1.2346 (ln B 2.08)", "dev": "76.54"}
