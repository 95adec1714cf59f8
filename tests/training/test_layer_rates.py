"""Frozen parts of the transformer, and learning rates by layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.training.layer_rates import freeze_weights, scale_rates
from tests.encoder.family_models import build
from tests.training.conftest import MakeConfig, Trained, train


class Optimizers(TrainerCallback):
    """The optimizers of the runs that had this callback."""

    def __init__(self) -> None:
        self.found: list[torch.optim.Optimizer] = []

    def on_train_end(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        self.found.append(optimizer)


def frozen(freeze: list[str]) -> dict[str, Any]:
    return {"training": {"freeze": freeze}}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return SentenceEncoder.load(folder, pooling="mean").backbone.state_dict()


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"chunk_tokens": 32}])
def test_frozen_weights_do_not_change_and_take_no_state(
    options: dict[str, Any], make_config: MakeConfig, tiny_encoder_dir: Path, trained: Trained
) -> None:
    optimizers = Optimizers()
    config = make_config(
        frozen(["embeddings", "layers.0"]), {"training": {"weight_decay": 0.1, **options}}
    )
    result = train(config, callbacks=[trained, optimizers])
    before, after = weights_of(tiny_encoder_dir), weights_of(result.output)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert [name for name in changed if not name.startswith("encoder.layer.1.")] == []
    trainable = [weight for weight in trained.methods[0].parameters() if weight.requires_grad]
    assert {id(weight) for weight in trainable} >= {id(key) for key in optimizers.found[0].state}


def test_the_rate_falls_from_layer_to_layer(make_config: MakeConfig, trained: Trained) -> None:
    optimizers = Optimizers()
    config = make_config({"training": {"layer_decay": 0.5, "schedule": "constant"}})
    train(config, callbacks=[trained, optimizers])
    rates = {
        id(weight): group["lr"]
        for group in optimizers.found[0].param_groups
        for weight in group["params"]
    }
    backbone = trained.methods[0].encoder.backbone
    found = {name: rates[id(weight)] for name, weight in backbone.named_parameters()}
    for start, expected in [("encoder.layer.1.", 1e-3), ("encoder.layer.0.", 5e-4)]:
        assert {rate for name, rate in found.items() if name.startswith(start)} == {expected}
    assert {rate for name, rate in found.items() if name.startswith("embeddings.")} == {2.5e-4}
    assert optimizers.found[0].param_groups[0]["lr"] == 1e-3


@pytest.mark.long
def test_a_decay_of_one_trains_the_same_weights(make_config: MakeConfig) -> None:
    plain = train(make_config(name="plain"))
    same = train(make_config({"training": {"layer_decay": 1.0}}, name="same"))
    for name, weight in weights_of(plain.output).items():
        torch.testing.assert_close(weights_of(same.output)[name], weight, rtol=0, atol=0)


def test_weight_decay_stays_with_its_weights() -> None:
    encoder = SentenceEncoder.load("mini")
    biases = [w for n, w in encoder.named_parameters() if n.endswith("bias")]
    others = [w for n, w in encoder.named_parameters() if not n.endswith("bias")]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}], lr=1.0
    )
    scale_rates(optimizer, encoder, 0.5)
    decayed = {
        id(weight)
        for group in optimizer.param_groups
        for weight in group["params"]
        if group["weight_decay"]
    }
    assert decayed == {id(weight) for weight in others}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(others + biases)


@pytest.mark.parametrize(
    "kind", ["bert", "mpnet", "distilbert", "electra", "deberta-v2", "modernbert", "gpt2", "qwen3"]
)
def test_every_family_has_embeddings_and_layers(kind: str) -> None:
    encoder = SentenceEncoder.load("mini")
    encoder.backbone = build(kind)
    backbone = encoder.backbone
    freeze_weights(encoder, ["embeddings", f"layers.0-{backbone.config.num_hidden_layers - 1}"])
    assert not backbone.get_input_embeddings().weight.requires_grad
    left = [name for name, weight in backbone.named_parameters() if weight.requires_grad]
    assert [
        name for name in left if not re.search("norm|ln_f|relative|rel_emb|pooler", name, re.I)
    ] == []


@pytest.mark.parametrize("name", ["layers.4", "layers.2-1", "layers.x", "embedding", "layers"])
def test_unknown_names_list_the_allowed_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=r"freeze has .*; allowed for this model: embeddings"):
        freeze_weights(SentenceEncoder.load("mini"), [name])


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    encoder = SentenceEncoder.load("mini")
    encoder.backbone = build("albert")
    with pytest.raises(ModelError, match=r"training\.freeze: a albert has no list of"):
        freeze_weights(encoder, ["embeddings"])


def test_a_run_that_would_train_nothing_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(
        ConfigError, match="leaves nothing of the encoder to train; leave the highest layer out"
    ):
        train(make_config(frozen(["embeddings", "layers.0-1"])))
