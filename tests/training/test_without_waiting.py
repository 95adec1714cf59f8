"""Training steps on an accelerator: the host reads nothing from it and prepares batches ahead."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import TrainerState

from simcse_kit.data.collate import Collated
from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.training import build, trainer
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.prefetch import Ahead
from simcse_kit.training.measurements import LogLine, Measurements
from simcse_kit.training.monitor.divergence import FiniteChecks, host_numbers
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.training.trainer import ContrastiveTrainer
from simcse_kit.training.verify_resume import differences
from tests.meta import META, operators
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import interrupt


class Away(Tensor):
    """A tensor on the CPU that says it is on an accelerator."""

    place = "mps"

    @property
    def device(self) -> torch.device:
        return torch.device(self.place)

    @classmethod
    def of(cls, value: float) -> Away:
        return torch.tensor(value).as_subclass(cls)


class OnCuda(Away):
    place = "cuda"


@pytest.fixture
def checks(tmp_path: Path) -> FiniteChecks:
    return FiniteChecks(cast(Method, None), tmp_path / "checkpoints", write=False)


# ------------------------------------------------------------------ loss and gradient


def test_a_number_on_the_cpu_is_checked_at_once(checks: FiniteChecks) -> None:
    checks.check("the loss", torch.tensor(1.0), {}, 1)
    with pytest.raises(ModelError, match="step 2: the norm is inf"):
        checks.check("the norm", math.inf, {}, 2)


def test_numbers_on_an_accelerator_are_checked_together_and_name_the_first_step(
    checks: FiniteChecks,
) -> None:
    for step, value in enumerate((0.5, math.nan, math.inf, 0.5), start=1):
        checks.check("the loss", Away.of(value), {}, step)
    with pytest.raises(ModelError, match="step 2: the loss is nan"):
        checks.settle()
    checks.settle()  # nothing is left


def test_few_batches_wait_for_their_check(checks: FiniteChecks) -> None:
    def steps(count: int) -> None:
        for step in range(1, count):
            checks.check("the loss", Away.of(math.nan if step == 1 else 0.5), {}, step)

    with pytest.raises(ModelError, match="step 1: "):
        steps(50)


def test_a_number_on_cuda_is_checked_when_it_has_arrived(
    checks: FiniteChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived: list[bool] = []

    class Event:
        def record(self, stream: str) -> None:
            assert stream == "stream"

        def query(self) -> bool:
            return bool(arrived)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "stream")
    for step in range(1, 4):
        checks.check("the loss", OnCuda.of(math.nan if step == 2 else 0.5), {}, step)
    arrived.append(True)
    with pytest.raises(ModelError, match="step 2: the loss is nan"):
        checks.check("the loss", OnCuda.of(0.5), {}, 4)


def test_a_check_reads_nothing_from_the_device(checks: FiniteChecks) -> None:
    with operators():
        for step in range(1, 9):
            checks.check("the loss", torch.ones((), device=META), {}, step)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_no_checkpoint_is_written_after_a_step_that_was_not_finite(
    where: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(FiniteChecks):
        """Checks of a run on an accelerator."""

        def check(self, what: str, value: Tensor | float, inputs: Collated, step: int) -> None:
            super().check(what, Away.of(float(value)), inputs, step)

    loss, steps = SimCSE.loss, []

    def spoil(self: SimCSE, embeddings: Any, batch: Any) -> MethodOutput:
        output = loss(self, embeddings, batch)
        steps.append(batch.input_ids)
        if len(steps) != 6:
            return output
        if where == "loss":
            return MethodOutput(output.loss * math.nan)
        return MethodOutput(output.loss + torch.sqrt(embeddings.sum() * 0))

    monkeypatch.setattr(trainer, "FiniteChecks", Late)
    monkeypatch.setattr(SimCSE, "loss", spoil)
    what = {"loss": "the loss", "gradient": "the norm of the gradient"}[where]
    config = make_config(
        {"training": {"log_every": 100}, "evaluation": {"held_out": 0, "trace_every": 0}}
    )
    with pytest.raises(ModelError, match=f"step 6: {what} is .*checkpoint of step 4 is good"):
        train(config)
    assert len(steps) == 8  # noticed before the next checkpoint
    folder = Path(config.training.output)
    assert list(checkpoint_steps(folder / "checkpoints")) == [4]
    lines = (folder / "diverged-batch.jsonl").read_text().splitlines()
    head, *rows = map(json.loads, lines)
    assert head["step"] == 6
    first = [row["input_ids"][0] for row in rows]
    assert first == [[i for i in ids if i] for ids in steps[5][:, 0].tolist()]


# ------------------------------------------------------------------ log lines


def test_scalars_of_an_accelerator_are_read_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda parts: (copies.append(len(parts)), stack(parts))[1])
    values = [1, Away.of(2.0), torch.tensor(3.0), Away.of(4.0)]
    assert host_numbers(values) == [1, 2, 3, 4]
    assert copies == [2]


def test_a_line_has_the_means_since_the_last_line() -> None:
    line = LogLine(Measurements(None, None, 0.7, 8))
    line.collect({"a": torch.tensor(1.0), "b": 2})
    line.collect({"a": torch.tensor(4.0)})
    logs = {"loss": 1.0}
    line.complete(logs, 1)
    assert logs == {"loss": 1.0, "a": 2.5, "b": 2.0, "ln_batch": 0.7}
    logs = {}
    line.complete(logs, 2)
    assert logs["ln_batch"] == 0.7
    assert "a" not in logs
    assert logs["sentences_per_second"] > 0


def test_collecting_reads_nothing_from_the_device() -> None:
    with operators():
        LogLine(Measurements(None, None, None, 8)).collect({"a": torch.ones((), device=META)})


# ------------------------------------------------------------------ gradient caching


class Bags(nn.Module):
    """A stand-in for a method: means of word vectors, with dropout."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.words = nn.Embedding(50, 4, device=device)
        self.dropout = nn.Dropout(0.1)

    def layout(self, batch: Batch) -> Batch:
        return batch.repeat_views(2)

    def embed(self, input_ids: Tensor, attention_mask: Tensor, _: Tensor) -> Tensor:
        return self.dropout(self.words(input_ids) * attention_mask[..., None]).sum(dim=1)

    def loss(self, embeddings: Tensor, _: Batch) -> MethodOutput:
        return MethodOutput((embeddings[:, 0] * embeddings[:, 1]).sum())


def batch_on(device: torch.device) -> Batch:
    lengths = np.array([[2], [5], [3], [5]])
    mask = torch.from_numpy((np.arange(5) < lengths[..., None]).astype(np.int64))
    ones = torch.ones(4, 1, dtype=torch.int64)
    return Batch(mask.clone(), mask, ones, ones.bool(), lengths=lengths).to(device)


@pytest.mark.parametrize("kept", [0, 100])
def test_gradient_caching_reads_nothing_from_the_device(kept: int) -> None:
    method = Bags(META)
    cache = GradientCache(8, kept_tokens=kept)
    with operators() as counts:
        cache(cast(Method, method), batch_on(META)).loss.backward()
    assert method.words.weight.grad is not None
    passes = 6 if kept else 11  # of 6 chunks; the graph of the first one is always kept
    assert counts["aten.embedding.default"] == passes


def test_a_chunk_knows_its_lengths_on_the_host() -> None:
    from simcse_kit.encoder.row_lengths import remembered

    seen: list[list[int]] = []

    class Spy(Bags):
        def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
            known = remembered(attention_mask)
            assert known is not None
            assert known.tolist() == attention_mask.sum(dim=1).tolist()
            seen.append(known.tolist())
            return super().embed(input_ids, attention_mask, views)

    GradientCache(8)(cast(Method, Spy(torch.device("cpu"))), batch_on(torch.device("cpu")))
    assert sorted(length for lengths in seen for length in lengths) == [2, 2, 3, 3, 5, 5, 5, 5]


class Step(Bags):
    """The same with the forward pass of a method."""

    def forward(self, lengths: Any = None, **tensors: Tensor) -> MethodOutput:
        batch = self.layout(Batch(**tensors, lengths=lengths))
        embeddings = self.embed(*batch.rows(), batch.view_numbers())
        output = self.loss(embeddings.view(*batch.shape, -1), batch)
        return MethodOutput(output.loss, {"contrastive_loss": output.loss.detach()})


@pytest.mark.parametrize("cached", [False, True])
def test_a_step_of_the_trainer_reads_nothing_from_the_device(
    cached: bool, checks: FiniteChecks
) -> None:
    running = ContrastiveTrainer.__new__(ContrastiveTrainer)
    method = Step(META)
    running._method = cast(Method, method)
    running._cache = GradientCache(8) if cached else None
    running._checks = checks
    running._line = LogLine(Measurements(None, None, 0.7, 8))
    running.state = TrainerState()
    optimizer = torch.optim.AdamW(method.parameters(), foreach=True)
    inputs = vars(batch_on(META)) | {"lengths": np.array([[2], [5], [3], [5]])}
    with operators():
        running.compute_loss(method, inputs).backward()
        norm = torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        checks.check("the norm of the gradient", norm, inputs, 1)
        optimizer.step()
        optimizer.zero_grad()


# ------------------------------------------------------------------ batches ahead


def test_a_thread_computes_a_fixed_number_of_items_ahead() -> None:
    names: list[str] = []

    def items() -> Iterator[int]:
        for number in range(6):
            names.append(threading.current_thread().name)
            yield number

    ahead = Ahead(items(), depth=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert len(names) == 4
    assert all(name.startswith("batches") for name in names)
    assert list(ahead) == []


def test_an_error_of_the_thread_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ModelError("bad")

    ahead = Ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ModelError, match="bad"):
        next(ahead)
    ahead.close()


# 7 batches are an epoch; with accumulation an epoch ends with an incomplete step.
@pytest.mark.long
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_with_prefetching_equals_one_without(
    accumulation: int, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {
        "trainer": {"gradient_accumulation_steps": accumulation},
        "data": {"augment": "delete(0.2)|reorder(2)"},
    }
    plain = train(make_config(table, name="plain"))
    monkeypatch.setattr(build, "_collates_ahead", lambda _: True)
    ahead = train(make_config(table, name="ahead"))
    assert differences(plain.output, ahead.output)[1] == []

    config = make_config(table, name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
    cut = train(config, resume=True)
    assert differences(plain.output, cut.output)[1] == []


def test_only_an_accelerator_gets_batches_ahead(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(trainer, "Prefetch", lambda: made.append(1))
    train(make_config())
    assert made == []
