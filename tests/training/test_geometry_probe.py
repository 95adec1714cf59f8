"""The trace of a training run, and the reaction to a collapse."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ModelError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods.common.heads import project_batch, relu_layers
from simcse_kit.metrics import geometry
from simcse_kit.metrics.collapse import spread_of
from simcse_kit.training import build
from simcse_kit.training.monitor.collapse import Facts, collapse_in, diagnose
from simcse_kit.training.monitor.geometry_probe import Probe
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, train
from tests.training.test_run import same_weights

HEALTHY = {
    "trace_uniformity": -2.0,
    "trace_spread": 0.6,
    "trace_mean_cosine": 0.5,
    "trace_effective_rank": 20.0,
}
COLLAPSED = HEALTHY | {"trace_spread": 0.01, "trace_mean_cosine": 1.0, "trace_effective_rank": 1.1}
GOOD = Facts(
    views_are_equal=False,
    negatives=63,
    needs_negatives=True,
    temperature=0.05,
    learning_rate=1e-3,
    duplicates=0.0,
)


def steps(*traces: dict[str, float]) -> list[dict[str, float]]:
    return [{"step": number, **trace} for number, trace in enumerate(traces)]


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean")


def test_the_trace_is_what_the_encoder_gives(encoder: SentenceEncoder, dev_file: Path) -> None:
    pairs = DevSet.load(dev_file).pairs
    probe = Probe.of_pairs(pairs, seed=0, max_length=32)
    assert probe is not None
    found = probe.measure(encoder)
    cloud = encoder.encode(pairs.sentences(), to="torch")
    assert found["trace_uniformity"] == pytest.approx(float(geometry.uniformity(cloud)))
    assert found["trace_effective_rank"] == pytest.approx(float(geometry.effective_rank(cloud)))
    high = [at for at, gold in enumerate(pairs.gold) if gold > 0.8 * pairs.scale[1]]
    left, right = (
        encoder.encode([side[at] for at in high], to="torch")
        for side in (pairs.sentences1, pairs.sentences2)
    )
    assert found["trace_alignment"] == pytest.approx(float(geometry.alignment(left, right)))


def test_single_sentences_are_aligned_with_themselves_under_dropout(
    encoder: SentenceEncoder,
) -> None:
    rows = [Example((text,)) for text in sentences(300)]
    probe = Probe.of_rows(rows, "texts", seed=0, max_length=32)
    assert probe is not None
    assert len(probe.sentences) == 100
    assert len(probe.anchors) == 60
    state = torch.random.get_rng_state()
    found = probe.measure(encoder)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not encoder.training
    assert found == probe.measure(encoder)
    assert found["trace_alignment"] > 0
    encoder.set_dropout(0.0)
    assert probe.measure(encoder)["trace_alignment"] == pytest.approx(0, abs=1e-9)


@pytest.mark.long
def test_a_run_with_the_trace_is_the_run_without(make_config: MakeConfig) -> None:
    def trained(every: int) -> Any:
        return train(make_config({"evaluation": {"trace_every": every}}, name=f"every-{every}"))

    with_trace, without = trained(3), trained(0)
    file = "model.safetensors"
    assert same_weights(with_trace.output / file, without.output / file)
    traced = [row["step"] for row in with_trace.history if "trace_spread" in row]
    assert traced == [0, 3, 6, 9, 12]
    assert not [row for row in without.history if "trace_spread" in row]


def test_projections_are_measured_as_the_loss_sees_them(encoder: SentenceEncoder) -> None:
    rows = [Example((text,)) for text in sentences(300)]
    probe = Probe.of_rows(rows, "texts", seed=0, max_length=32)
    assert probe is not None
    torch.manual_seed(0)
    head = relu_layers([encoder.embedding_dim, 16, 8], batch_norm=True).eval()
    found = probe.measure(encoder, head)
    vectors = encoder.encode(probe.sentences, to="torch", normalize=False)
    expected = spread_of(project_batch(head, vectors))
    for name, value in vars(expected).items():
        assert found[f"trace_projection_{name}"] == pytest.approx(value)
    assert found["trace_spread"] == probe.measure(encoder)["trace_spread"]
    with torch.no_grad():
        head[0].weight.fill_(math.nan)
    assert set(probe.measure(encoder, head)) == set(probe.measure(encoder))


def test_two_measurements_in_a_row_make_a_collapse() -> None:
    assert collapse_in(steps(HEALTHY)) is None
    assert collapse_in(steps(HEALTHY, COLLAPSED)) is None
    assert collapse_in(steps(HEALTHY, COLLAPSED, HEALTHY)) is None
    found = collapse_in(steps(HEALTHY, {"loss": 1.0}, COLLAPSED, COLLAPSED))
    assert found is not None
    assert found.startswith("complete collapse: spread 0.010")
    flat = HEALTHY | {"trace_effective_rank": 1.2}
    assert str(collapse_in(steps(HEALTHY, flat, flat))).startswith("dimensional collapse")
    # One that was low from the start has not fallen.
    assert collapse_in(steps(COLLAPSED, COLLAPSED, COLLAPSED)) is None


def test_a_collapse_of_the_projections_alone_is_named() -> None:
    projected = {key.replace("trace_", "trace_projection_"): x for key, x in HEALTHY.items()}
    flat = projected | {"trace_projection_effective_rank": 1.2}
    rows = steps(HEALTHY | projected, HEALTHY | flat, HEALTHY | flat)
    assert str(collapse_in(rows)).startswith("dimensional collapse of the projections: spread 0.6")
    assert collapse_in(rows[:2]) is None


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"views_are_equal": True}, "every dropout is 0, .* --set method.dropout=0.1"),
        ({"negatives": 1}, "an anchor has 1 negatives; use a larger --batch-size"),
        ({"duplicates": 0.5}, "50 % of the rows repeat an anchor, .* simcse data dedupe"),
        ({"temperature": 2.0}, "the temperature is 2; set method.temperature"),
        ({"temperature": 1e-3}, "the temperature is 0.001"),
        ({"needs_negatives": False, "negatives": 0}, "the method has no negatives"),
        (
            {"needs_negatives": False, "negatives": 0, "remedy": "raise method.momentum"},
            "use a larger --batch-size, raise method.momentum, or use a method with negatives",
        ),
        ({}, "the learning rate 0.001 may be too large; try a fifth"),
    ],
)
def test_causes(change: dict[str, Any], cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        raise ModelError(diagnose(Facts(**(vars(GOOD) | change)), []))


def test_a_loss_of_nothing_learnt_is_evidence() -> None:
    row = {"step": 3, "contrastive_loss": 4.15, "ln_batch": 4.1589}
    assert diagnose(GOOD, [row]).startswith("the loss is 4.150, and 4.159 is that of an encoder")
    assert "the loss is" not in diagnose(GOOD, [row | {"contrastive_loss": 1.0}])


@pytest.fixture
def collapses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From the 5th measurement on the probe shows a collapse; gives the measurements made."""
    made: list[int] = []

    def measure(_probe: Probe, *_: Any) -> dict[str, float]:
        made.append(len(made))
        return COLLAPSED if made[-1] >= 5 else HEALTHY

    monkeypatch.setattr(Probe, "measure", measure)
    return made


def config_of(make_config: MakeConfig, policy: str, **evaluation: Any) -> Any:
    table = {"trace_every": 1, "every": 2, "on_collapse": policy, **evaluation}
    return make_config({"evaluation": table, "training": {"learning_rate": 1e-3}})


def test_warn_says_it_once_and_goes_on(
    make_config: MakeConfig, collapses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="simcse_kit.training.monitor.collapse"):
        result = train(config_of(make_config, "warn"))
    assert result.steps == 12
    assert result.collapse is not None
    assert [record.getMessage() for record in caplog.records] == [f"step 6: {result.collapse}"]
    assert len(collapses) == 13


def test_stop_keeps_the_best_checkpoint(
    make_config: MakeConfig,
    collapses: list[int],  # noqa: ARG001
) -> None:
    result = train(config_of(make_config, "stop"))
    assert result.steps == 6
    assert result.best_step in (2, 4, 6)
    best = result.output / f"checkpoints/checkpoint-{result.best_step}/model.safetensors"
    assert best.is_file()
    assert (result.output / "config.json").is_file()


def test_stop_before_any_checkpoint_keeps_nothing(
    make_config: MakeConfig,
    collapses: list[int],  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build.StepFlow, "on_step_end", lambda *_, **__: None)
    config = config_of(make_config, "stop", every=100)
    with pytest.raises(ModelError, match="stopped before there was a good checkpoint"):
        train(config)
    assert not (Path(config.training.output) / "config.json").exists()


def test_rollback_goes_to_the_last_good_weights_with_half_the_rate(
    make_config: MakeConfig,
    collapses: list[int],  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []
    go_back = build.ContrastiveTrainer.go_back

    def spy(self: Any, most: int) -> int | None:
        step = go_back(self, most)
        kept = Path(self.args.output_dir) / f"checkpoint-{step}" / "model.safetensors"
        self._save(str(kept.parent / "again"))
        again = kept.parent / "again" / "model.safetensors"
        seen.append((most, step, same_weights(kept, again), self.lr_scheduler.base_lrs[0]))
        return step

    monkeypatch.setattr(build.ContrastiveTrainer, "go_back", spy)
    with caplog.at_level(logging.WARNING, logger="simcse_kit.training.monitor.collapse"):
        result = train(config_of(make_config, "rollback"))
    # The first is found at step 6, the second two measurements later; the third ends the run.
    assert seen == [(4, 4, True, 5e-4), (6, 6, True, 2.5e-4)]
    assert [row["rolled_back_to"] for row in result.history if "rolled_back_to" in row] == [4, 6]
    assert result.steps == 10
    assert "went back to the weights of step 4" in caplog.text


def test_a_real_collapse_is_found(make_config: MakeConfig) -> None:
    training = {"learning_rate": 3.0, "max_steps": 12}
    table = {"trace_every": 1, "on_collapse": "warn"}
    result = train(make_config({"training": training, "evaluation": table}))
    assert result.collapse is not None
    assert "the learning rate 3 may be too large" in result.collapse
