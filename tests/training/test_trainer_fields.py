"""Fields of `[trainer]`: accepted, refused, and none missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.training.batching.recompute import recompute_activations
from simcse_kit.training.trainer_fields import (
    OURS,
    RECOMPUTE,
    REFUSED,
    AllowedKeys,
    check_trainer_keys,
)
from tests.contracts.test_methods import make_batch
from tests.training.conftest import MakeConfig, train

FIELDS = [field.name for field in dataclasses.fields(transformers.TrainingArguments)]
# A value other than the default, with what else it needs. On this machine or on none: GPU keys are
# in a table of their own.
VALUES: dict[str, dict[str, Any]] = {
    "lr_scheduler_kwargs": {"lr_scheduler_kwargs": {"num_cycles": 1}},
    "optim": {"optim": "adafactor"},
    "adam_beta1": {"adam_beta1": 0.8},
    "adam_beta2": {"adam_beta2": 0.99},
    "adam_epsilon": {"adam_epsilon": 1e-6},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "activation_checkpointing": {"activation_checkpointing": True},
    "torch_empty_cache_steps": {"torch_empty_cache_steps": 1},
    "log_level": {"log_level": "error"},
    "run_name": {"run_name": "one"},
    "save_total_limit": {"save_total_limit": 1},
    "use_cpu": {"use_cpu": True},
    "dataloader_num_workers": {"dataloader_num_workers": 1},
    "dataloader_pin_memory": {"dataloader_pin_memory": False},
    "dataloader_persistent_workers": {
        "dataloader_persistent_workers": True,
        "dataloader_num_workers": 1,
    },
    "dataloader_prefetch_factor": {"dataloader_prefetch_factor": 3, "dataloader_num_workers": 1},
}
ON_GPUS = ("fp16",)


def test_every_field_of_the_installed_release_is_decided_on() -> None:
    decided = {*AllowedKeys.model_fields, *OURS, *REFUSED}
    assert [name for name in FIELDS if name not in decided] == []
    tables = [*AllowedKeys.model_fields, *OURS, *REFUSED]
    assert len(tables) == len(set(tables)), "a field is in two tables"


def test_every_allowed_field_is_tried() -> None:
    assert {*VALUES, *ON_GPUS} == set(AllowedKeys.model_fields)


@pytest.mark.parametrize("key", [*OURS, *REFUSED])
def test_what_cannot_be_given_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trainer_keys({key: True}, schedule="linear")
    message = str(caught.value)
    assert message.startswith(f"trainer.{key} cannot be given")
    assert (OURS[key] if key in OURS else REFUSED[key]) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"adam_beta3": 1}, r"unknown key trainer\.adam_beta3 \(did you mean 'adam_beta"),
        ({"adam_beta1": 1.0}, r"\[trainer\]: trainer\.adam_beta1 is 1\.0: input should be less"),
        ({"dataloader_num_workers": "2"}, r"trainer\.dataloader_num_workers is '2'"),
        ({"save_total_limit": 0}, r"trainer\.save_total_limit is 0"),
        ({"optim": "adamx"}, r"trainer\.optim is 'adamx'.*adafactor"),
        ({"optim": "sgd", "adam_beta1": 0.5}, "no effect on trainer.optim = 'sgd'"),
        ({"dataloader_persistent_workers": True}, "there are none; set trainer.dataloader_num"),
        ({"dataloader_prefetch_factor": 2}, "there are none"),
        ({"lr_scheduler_kwargs": {"num_cycles": 1}}, "'linear' takes nothing there"),
        (dict.fromkeys(RECOMPUTE, True), "two names of one setting"),
    ],
)
def test_values_and_combinations_are_checked(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_trainer_keys(table, schedule="linear")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("key", ["neftune_noise_alpha", "push_to_hub", "fsdp", "no_such_key"])
def test_a_key_is_refused_before_anything_is_touched(
    make_config: MakeConfig, tmp_path: Path, key: str
) -> None:
    config = make_config({"trainer": {key: True}})
    with pytest.raises(ConfigError, match=f"trainer.{key}"):
        train(config, overwrite=True)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "chunk_tokens"), [("gradient_checkpointing", None), ("activation_checkpointing", 40)]
)
def test_recomputed_layers_give_the_same_encoder(
    make_config: MakeConfig, key: str, chunk_tokens: int | None
) -> None:
    """Without dropout, whose random numbers differ; in one piece and in chunks."""
    short: dict[str, Any] = {
        "training": {"max_steps": 2, "learning_rate": 1e-3},
        "method": {"dropout": 0.0},
        "data": {"augment": "delete(0.3)"},
    }
    if chunk_tokens is not None:
        short["training"]["chunk_tokens"] = chunk_tokens
    found = []
    for name, trainer in (("kept", {}), ("recomputed", {key: True})):
        result = train(make_config(short, {"trainer": trainer}, name=name))
        found.append(SentenceEncoder.load(result.output).state_dict())
        losses = [row["loss"] for row in result.history if "loss" in row]
        assert losses
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=2e-4)


def test_recomputed_layers_have_the_same_gradients(tiny_encoder_dir: Path) -> None:
    for name in ("simcse", "dual_encoder", "diffcse"):
        grads = []
        for recompute in (False, True):
            torch.manual_seed(0)
            encoder = SentenceEncoder.load(tiny_encoder_dir)
            method = METHODS.resolve(name)(encoder, build_config(name, {"dropout": 0.0}))
            method.double().train()
            if recompute:
                recompute_activations(method, "gradient_checkpointing")
            kind = method.reads[0]
            torch.manual_seed(1)
            torch.autograd.backward(method(**make_batch(type(method), encoder, kind)).loss)
            grads.append({n: w.grad for n, w in method.named_parameters() if w.grad is not None})
        torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


def test_layers_keep_less_when_they_are_recomputed(tiny_encoder_dir: Path) -> None:
    held = []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = SentenceEncoder.load(tiny_encoder_dir)
        method = METHODS.resolve("simcse")(encoder, build_config("simcse", {"dropout": 0.0}))
        method.train()
        if recompute:
            recompute_activations(method, "gradient_checkpointing")
        saved = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            method(**make_batch(type(method), encoder, "texts"))
        held.append(saved)
    assert held[1] < held[0] / 2


def test_an_architecture_that_cannot_recompute_is_refused(tiny_encoder_dir: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    method = METHODS.resolve("simcse")(encoder, build_config("simcse", {}))
    encoder.backbone.supports_gradient_checkpointing = False  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="a bert cannot recompute its layers; leave it out"):
        recompute_activations(method, "gradient_checkpointing")


@pytest.mark.slow
@pytest.mark.parametrize("key", VALUES)
def test_two_steps_with_each_allowed_key(make_config: MakeConfig, key: str) -> None:
    if key not in FIELDS and key not in RECOMPUTE:
        pytest.skip(f"transformers {transformers.__version__} has no {key}")
    schedule = "cosine" if key == "lr_scheduler_kwargs" else "linear"
    config = make_config(
        {
            "training": {"max_steps": 2, "schedule": schedule},
            "evaluation": {"every": 1},
            "trainer": VALUES[key],
        }
    )
    result = train(config)
    assert result.steps == 2
    assert SentenceEncoder.load(result.output).encode("a cat").shape == (32,)
