"""Runs with augmentations: what they train on, how they resume, and what they refuse."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from simcse_kit.cli.main import app
from simcse_kit.data.augment import AugmentedViews
from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, MissingExtraError, ModelError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.training.mlm_proposals import Proposals
from simcse_kit.training.result import TrainResult
from tests.small_data import WORDS, sentences
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import interrupt, outcome, timeless
from tests.training.test_run import same_weights

CHAIN = "delete(0.3)|reorder(2)"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The batches that a run trains on, as the model gets them."""
    from simcse_kit.training.trainer import ContrastiveTrainer

    batches: list[dict[str, torch.Tensor]] = []
    compute = ContrastiveTrainer.compute_loss

    def spy(self: Any, model: Any, inputs: dict[str, torch.Tensor], *rest: Any, **more: Any) -> Any:
        batches.append({name: deepcopy(part) for name, part in inputs.items()})
        return compute(self, model, inputs, *rest, **more)

    monkeypatch.setattr(ContrastiveTrainer, "compute_loss", spy)
    return batches


def of_ids(batches: list[dict[str, torch.Tensor]]) -> dict[int, list[list[int]]]:
    """What became of each sentence, by its id, in the order of the run."""
    found: dict[int, list[list[int]]] = {}
    for batch in batches:
        keys = batch["text_ids"][:, 1].tolist()
        for key, ids, mask in zip(
            keys, batch["input_ids"][:, 1], batch["attention_mask"][:, 1], strict=True
        ):
            found.setdefault(key, []).append(ids[mask.bool()].tolist())
    return found


def small(chain: str | list[str], **training: Any) -> dict[str, Any]:
    return {"data": {"augment": chain}, "training": {"max_steps": 2, **training}}


@pytest.mark.parametrize("kind", ["texts", "pairs", "triplets"])
def test_two_steps(kind: str, make_config: MakeConfig, seen: list[dict[str, torch.Tensor]]) -> None:
    result = train(make_config(small(CHAIN), kind=kind))
    assert result.steps == 2
    first = seen[0]
    assert first["input_ids"].shape[1] == {"texts": 2, "pairs": 2, "triplets": 4}[kind]
    if kind == "texts":
        assert torch.equal(first["text_ids"][:, 0], first["text_ids"][:, 1])
        lengths = first["attention_mask"].sum(-1)
        assert (lengths[:, 1] <= lengths[:, 0]).all()
        assert (lengths[:, 1] < lengths[:, 0]).any()
    text = (result.output / "run.toml").read_text(encoding="utf-8")
    assert f'augment = "{CHAIN}"' in text


def test_other_epochs_change_texts_otherwise(
    make_config: MakeConfig, seen: list[dict[str, torch.Tensor]]
) -> None:
    evaluation = {"held_out": 0}
    train(make_config(small("delete(0.5)", max_steps=16), {"evaluation": evaluation}))
    twice = of_ids(seen)
    assert len(twice) == 64
    assert all(len(made) == 2 for made in twice.values())
    assert sum(first != second for first, second in twice.values()) > 40


@pytest.mark.long
def test_batch_size_and_workers_make_no_difference(
    make_config: MakeConfig, seen: list[dict[str, torch.Tensor]]
) -> None:
    tables: list[dict[str, Any]] = [
        {},
        {"training": {"batch_size": 4, "max_steps": 32}},
        {"trainer": {"dataloader_num_workers": 2}},
        {"trainer": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}},
    ]
    found = []
    for number, table in enumerate(tables):
        seen.clear()
        train(
            make_config(
                small(CHAIN, max_steps=16),
                {"evaluation": {"held_out": 0, "every": 16}},
                table,
                name=f"out{number}",
            )
        )
        found.append(of_ids(seen))
    # text ids are hashes of tokens, so that they are comparable
    assert found[1:] == found[:1] * 3


@pytest.mark.long
@pytest.mark.parametrize("chain", [CHAIN, ["crop(0.8)", "mlm(0.3)|repeat"]])
def test_resumed_equals_uninterrupted(
    chain: str | list[str], make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"data": {"augment": chain}}
    whole: TrainResult = train(make_config(table, name="whole"))
    config = make_config(table, name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    with pytest.raises(ConfigError, match=r"data\.augment was"):
        train(make_config({"data": {"augment": "crop(0.5)"}}, name="cut"), resume=True)
    cut = train(config, resume=True)
    assert cut.sentences * 12 == whole.sentences * 4  # the middle of the second epoch
    assert outcome(cut) == outcome(whole)
    assert timeless(cut.output) == timeless(whole.output)
    assert same_weights(cut.output / "model.safetensors", whole.output / "model.safetensors")


def test_identity_with_itself_is_plain_simcse(
    make_config: MakeConfig,
) -> None:
    plain = train(make_config({"training": {"max_steps": 2}}, name="plain"))
    copies = train(make_config(small(["identity", "identity"]), name="copies"))
    assert same_weights(plain.output / "model.safetensors", copies.output / "model.safetensors")


# ---------------------------------------------------------------- refused before weights load


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("delte(0.1)", r"unknown augmentation 'delte' \(did you mean 'delete'\?\); known: back"),
        ("delete(2)", "data.augment: delete: rate is 2; it must be a number from 0 to 1"),
        ("delete(1, 2, 3, 4)", "delete does not take these arguments"),
        (["identity"], r"data.augment has 1 chains, and texts take 2 \(anchor, positive\)"),
        (["mlm", "identity"], "leave out trainer.dataloader_num_workers = 1"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_wrong_settings(chain: str | list[str], message: str, make_config: MakeConfig) -> None:
    config = make_config(small(chain), {"trainer": {"dataloader_num_workers": 1}})
    with pytest.raises(ConfigError, match=message) as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not Path(config.training.output).exists()


@pytest.mark.usefixtures("no_weights")
def test_a_missing_extra(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(MissingExtraError, match="wordnet"):
        train(make_config(small("substitute(0.1)")))


def test_the_flag(make_config: MakeConfig, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    config = make_config()
    command = [
        *("train", *config.data.train, "--model", str(tiny_encoder_dir), "--batch-size", "8"),
        *("--max-steps", "2", "--output", str(tmp_path / "flag"), "--set", "model.pooling=mean"),
    ]
    once = [*command, "--augment", CHAIN, "--json"]
    done = CliRunner().invoke(app, once)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
    run = (tmp_path / "flag" / "run.toml").read_text(encoding="utf-8")
    assert f'augment = "{CHAIN}"' in run
    again = [*command, "--overwrite", "--augment", "crop(0.9)", "--augment", "identity"]
    assert CliRunner().invoke(app, again).exit_code == 0
    run = (tmp_path / "flag" / "run.toml").read_text(encoding="utf-8")
    assert '"crop(0.9)"' in run


# ---------------------------------------------------------------- every method


@pytest.mark.parametrize(
    "name",
    # Distillation compares each view with the target of its row.
    [name for name in METHODS if "texts" in METHODS.resolve(name).reads and name != "distill"],
)
def test_methods_take_two_prepared_views(name: str, tiny_encoder_dir: Path) -> None:
    encoder = SentenceEncoder.load(str(tiny_encoder_dir), pooling="mean")
    method = METHODS.resolve(name)(encoder, build_config(name, {})).train()
    rows = [Example((text,), row=row) for row, text in enumerate(sentences(8))]
    shapes = []
    for augment in (None, AugmentedViews("delete(0.5)", seed=0)):
        views = method.views(DataSpec("texts"))
        views = views if augment is None else augment.lay_out("texts", views)
        collate = Collator(method.encoder.tokenize, 0, views, augment)
        batch = method.layout(Batch(**collate(rows)))
        shapes.append(batch.shape)
    assert shapes[0] == shapes[1]
    assert method(**collate(rows)).loss.isfinite()
    assert (batch.text_ids == batch.text_ids[:, :1]).all()


# ---------------------------------------------------------------- masked-LM proposals


@pytest.fixture
def proposals(tiny_encoder_dir: Path) -> Proposals:
    encoder = SentenceEncoder.load(str(tiny_encoder_dir), pooling="mean")
    return Proposals.of(encoder, torch.device("cpu"))


def test_proposals_replace_the_share_of_words(proposals: Proposals) -> None:
    texts = [" ".join(WORDS[at : at + 10]) for at in range(20)] * 5
    state = torch.get_rng_state()
    made = proposals(texts, [Random(row) for row in range(100)], rate=0.3, top=5)
    assert torch.equal(torch.get_rng_state(), state)
    for old, new in zip(texts, made, strict=True):
        pairs = list(zip(old.split(), new.split(), strict=True))
        assert sum(a != b for a, b in pairs) == 3
        assert not any(word.startswith("[") for word in new.split())
    assert made[:20] != made[20:40]
    # a single text gets the same change
    assert [proposals([texts[row]], [Random(row)], rate=0.3, top=5)[0] for row in range(30)] == (
        made[:30]
    )
    assert proposals(texts, [Random(0)] * 100, rate=0.0, top=5) == texts


def test_proposals_are_the_likeliest(proposals: Proposals) -> None:
    text, rng = "The  cat sat, on the mat", Random(3)
    (made,) = proposals([text], [rng], rate=0.15, top=1)
    tokenizer = proposals.tokenizer
    row = tokenizer(text, return_offsets_mapping=True)
    new = tokenizer(made)["input_ids"]
    (place,) = [at for at, (a, b) in enumerate(zip(row["input_ids"], new, strict=True)) if a != b]
    hidden = list(row["input_ids"])
    hidden[place] = tokenizer.mask_token_id
    scores = proposals.model(input_ids=torch.tensor([hidden])).logits[0, place]
    scores[[*tokenizer.all_special_ids, row["input_ids"][place]]] = -torch.inf
    start, end = row["offset_mapping"][place]
    # what is around the token stays to the letter
    assert made == text[:start] + tokenizer.decode([int(scores.argmax())]) + text[end:]


def test_proposals_of_pieces_with_a_mark_of_the_space() -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(sentences(200), vocab_size=330, special_tokens=special)
    names = dict(zip("bos pad eos unk mask".split(), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, **{f"{name}_token": text for name, text in names.items()}
    )

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:  # noqa: ARG002
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, len(tokenizer) + 3))

    model = Proposals(Model(), tokenizer, 64)
    texts = ["two dogs in a park", "the  guitars, playing (music)", "ümlaut"] * 20
    made = model(texts, [Random(row) for row in range(60)], rate=0.4, top=400)
    assert sum(new != old for old, new in zip(texts, made, strict=True)) > 50
    for old, new in zip(texts, made, strict=True):
        # words stay as many, with the spaces that were between them
        assert re.findall(r"\s+", new) == re.findall(r"\s+", old)
        assert not any(text in new for text in special)
        assert "\ufffd" not in new


def test_proposals_need_a_masked_language_model(
    tiny_encoder_dir: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    SentenceEncoder.load(str(tiny_encoder_dir), pooling="mean").save(tmp_path / "bare")
    config = make_config(small("mlm"), {"model": {"name": str(tmp_path / "bare")}})
    with pytest.raises(ModelError, match=r"needs a masked language model: .* or drop mlm") as e:
        train(config)
    assert "\n" not in str(e.value)
    assert not Path(config.training.output).exists()
