"""The memory budget: the cost of a token, the chunks that follow, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.batching import chunking, memory
from simcse_kit.training.batching.memory import (
    MemoryPlan,
    bytes_in_use,
    measure_activations,
    plan_memory,
)
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, Trained, train
from tests.training.test_resume import interrupt, timeless
from tests.training.test_run import same_weights

PROCESS = 500_000_000
Plan = Callable[..., MemoryPlan]


@pytest.fixture
def method(tiny_encoder_dir: Path) -> SimCSE:
    torch.manual_seed(0)
    return SimCSE(SentenceEncoder.load(tiny_encoder_dir), SimCSEConfig()).train()


@pytest.fixture
def sample(method: SimCSE) -> Batch:
    rows = [Example((text,)) for text in sentences(32)]
    return Batch(**Collator(method.encoder.tokenize, 0, (0,))(rows))


@pytest.fixture
def plan(method: SimCSE, sample: Batch, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(memory, "bytes_in_use", lambda _: PROCESS)

    def make(budget: float, batch_size: int = 4096) -> MemoryPlan:
        return plan_memory(method, sample, budget=int(budget), batch_size=batch_size, max_length=16)

    return make


# ------------------------------------------------------------------ measuring


def test_the_memory_of_the_process_grows_with_what_it_holds() -> None:
    before = bytes_in_use(torch.device("cpu"))
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert bytes_in_use(torch.device("cpu")) - before >= 0.9 * held.nbytes
    assert before > 50 * 2**20


def test_activations_are_those_that_a_graph_holds(method: SimCSE, sample: Batch) -> None:
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in method.state_dict().items()}
    cost = measure_activations(method, sample)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
    assert all(weight.grad is None for weight in method.parameters())
    # By hand: a layer keeps at the least its inputs, queries, keys, values, two feed-forward
    # widths of 64 and the two inputs of LayerNorm, 32 each, in float32; and hardly ten times it.
    least = 2 * (6 * 32 + 2 * 64) * 4
    assert least < cost.per_token < 10 * least
    assert 0 <= cost.per_chunk < 2 * sum(value.nbytes for value in weights.values())


def test_longer_rows_cost_more_a_token(method: SimCSE, sample: Batch) -> None:
    ids, mask = sample.input_ids.repeat(1, 1, 3), sample.attention_mask.repeat(1, 1, 3)
    longer = Batch(ids, mask, sample.text_ids, sample.view_mask)
    assert (
        measure_activations(method, longer).per_token
        > measure_activations(method, sample).per_token
    )


# ------------------------------------------------------------------ choosing


def test_a_batch_that_fits_is_made_in_one_piece(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = plan(4e9, batch_size=64)
    assert found.chunk_tokens is None
    assert PROCESS < found.peak < 4e9
    assert "memory budget 4GB: a whole batch fits" in caplog.text


def test_a_larger_batch_goes_in_chunks(plan: Plan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = plan(7e8)
    assert found.chunk_tokens == memory.CHUNK_TOKENS
    assert found.kept_tokens % memory.CHUNK_TOKENS == 0
    assert found.kept_tokens > memory.CHUNK_TOKENS
    assert PROCESS < found.peak <= 7e8
    message = caplog.records[-1].getMessage()
    for words in ("700MB", "chunks of 2,048 tokens", "per step", "expected peak", "interpreter"):
        assert words in message
    assert "\n" not in message


def test_chunks_shrink_with_the_budget(plan: Plan) -> None:
    budgets = [5.2e8, 5.25e8, 6e8, 8e8]
    plans = [plan(budget) for budget in budgets]
    sizes = [(found.chunk_tokens or 0, found.kept_tokens) for found in plans]
    assert sizes == sorted(sizes)
    assert sizes[0][0] < sizes[-1][0]
    for (chunk, kept), found, budget in zip(sizes, plans, budgets, strict=True):
        assert chunk & (chunk - 1) == 0  # a power of two
        assert kept >= chunk
        assert found.peak <= budget


def test_what_a_refusal_asks_for_is_enough(plan: Plan) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(1e6)
    message = str(caught.value)
    assert message.startswith("training.memory_budget is 1MB but the model, its optimizer and a")
    assert "one sentence of 16 tokens" in message
    assert "\n" not in message
    least = int(message.partition("give ")[2].partition("MB or more")[0]) * 10**6
    assert plan(least).chunk_tokens is not None
    with pytest.raises(ConfigError):
        plan(least - 2e7)


# ------------------------------------------------------------------ whole runs


def budget(size: str | int | None = None, chunk: int | None = None) -> dict[str, Any]:
    return {"training": {"memory_budget": size, "chunk_tokens": chunk}}


@pytest.mark.long
def test_a_run_with_a_generous_budget_is_the_plain_run(
    make_config: MakeConfig, plain_run: Path
) -> None:
    wide = train(make_config(budget("100GB"), name="wide"))
    assert timeless(wide.output) == timeless(plain_run)
    file = "model.safetensors"
    assert same_weights(wide.output / file, plain_run / file)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_in_chunks_learns_what_the_plain_run_learns(
    precision: str, make_config: MakeConfig, trained: Trained
) -> None:
    # Without dropout chunks change nothing but the order of sums.
    common = {
        "method": {"dropout": 0.0},
        "training": {"precision": precision, "max_steps": 8},
        "trainer": {"gradient_accumulation_steps": 2},
    }
    train(make_config(common, name="plain", kind="pairs"), callbacks=[trained])
    train(make_config(common, budget(chunk=20), name="chunks", kind="pairs"), callbacks=[trained])
    plain, chunks = (dict(method.named_parameters()) for method in trained.methods)
    apart = max((plain[name] - chunks[name]).detach().abs().max().item() for name in plain)
    assert apart < (1e-4 if precision == "fp32" else 5e-3)


@pytest.mark.long
def test_a_resumed_run_in_chunks_equals_an_uninterrupted_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = iter([MemoryPlan(20, 40, 0), MemoryPlan(20, 40, 0), MemoryPlan(None, 9999, 0)])
    monkeypatch.setattr(chunking, "plan_memory", lambda *_, **__: next(plans))
    whole = train(make_config(budget("1GB"), name="whole"))
    config = make_config(budget("1GB"), name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    # The process has more memory now, and continues with the chunks it started with.
    cut = train(config, resume=True)
    assert timeless(cut.output) == timeless(whole.output)
    file = "model.safetensors"
    assert same_weights(cut.output / file, whole.output / file)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([budget("1GB", 64)], ["memory_budget = '1GB'", "chunk_tokens = 64", "give one of them"]),
        (
            [budget("1GB"), {"method": {"mlm_weight": 0.1}}],
            ["training.memory_budget cannot be used with method 'simcse'", "mlm_weight = 0.1"],
        ),
        ([budget(chunk=64), {"method": {"mlm_weight": 0.1}}], ["training.chunk_tokens cannot"]),
    ],
)
def test_what_cannot_be_cut_is_refused_before_weights_are_loaded(
    settings: list[dict[str, Any]], words: list[str], make_config: MakeConfig
) -> None:
    config = make_config(*settings)
    with pytest.raises(ConfigError) as caught:
        train(config)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert not Path(config.training.output).exists()


def test_a_budget_that_is_too_small_leaves_nothing_behind(make_config: MakeConfig) -> None:
    config = make_config(budget("10MB"))
    with pytest.raises(ConfigError, match=r"training\.memory_budget is 10MB but .*; give "):
        train(config)
    assert not Path(config.training.output).exists()


def test_a_damaged_note_of_the_chunks_is_named(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(budget("100GB"))
    interrupt(config, monkeypatch, share=5 / 12)
    note = Path(config.training.output) / "checkpoints" / "chunk-tokens"
    assert note.read_text(encoding="utf-8") == "whole batch\n"
    note.write_text("many\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"chunk-tokens is damaged"):
        train(config, resume=True)
