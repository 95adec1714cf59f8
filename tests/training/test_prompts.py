"""Prompts of the columns of training data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.config import DataSection
from simcse_kit.data.collate import Collator, ViewPrompt
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.training.column_prompts import column_prompts
from tests.encoder.conftest import edit_json
from tests.training.conftest import MakeConfig, train
from tests.training.test_run import same_weights

FILE = "model.safetensors"
KEYS = ("anchor", "positive", "negatives")


def with_prompts_in_the_file(path: Path, prompts: tuple[str, ...]) -> Path:
    lines = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        for key, prompt in zip(KEYS, prompts, strict=False):
            if key in row:
                value = row[key]
                row[key] = [prompt + text for text in value] if value is list else prompt + value
        lines.append(json.dumps(row) + "\n")
    changed = path.with_name("prompted.jsonl")
    changed.write_text("".join(lines), "utf-8")
    return changed


@pytest.mark.long
@pytest.mark.parametrize(
    ("prompts", "texts", "saved", "default"),
    [
        ("the dog ", ("the dog ", "the dog "), {}, "the dog "),
        (
            {"query": "a cat ", "positive": "the mat in the park "},
            ("a cat ", "the mat in the park "),
            {"query": "a cat ", "document": "the mat in the park "},
            "",
        ),
        ({"anchor": "a cat "}, ("a cat ", ""), {"query": "a cat ", "document": ""}, ""),
    ],
)
def test_training_with_prompts_is_training_on_texts_with_them(
    make_config: MakeConfig, prompts: Any, texts: tuple[str, ...], saved: Any, default: str
) -> None:
    config = make_config({"data": {"prompts": prompts}}, name="with", kind="pairs")
    result = train(config)
    path = with_prompts_in_the_file(Path(config.data.train[0]), texts)
    other = train(make_config({"data": {"train": [str(path)]}}, name="texts", kind="pairs"))
    assert same_weights(result.output / FILE, other.output / FILE)
    plain = train(make_config(name="plain", kind="pairs"))
    assert not same_weights(result.output / FILE, plain.output / FILE)
    encoder = SentenceEncoder.load(result.output)
    assert encoder.prompt == default
    assert encoder.prompts == (saved or {"default": default})
    assert "prompts =" not in (plain.output / "run.toml").read_text("utf-8")


def test_one_text_has_one_id_whatever_its_prompt(tiny_encoder_dir: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir)

    def tokenize(texts: Any) -> Any:
        return encoder.tokenize(texts, max_length=12, prompt="")

    def prompt(text: str) -> ViewPrompt:
        around = len(encoder.tokenize([""], prompt=text)[0][0])
        return ViewPrompt(text, encoder.tokenization.prompt_length(text), around)

    rows = [Example(("a cat", "the dog", "a bird")), Example(("the dog", "a cat"))]
    bare = tokenize([""])[0][0]
    plain = Collator(tokenize, 0, (0, 1, 2), bare=bare)
    prompted = Collator(
        tokenize, 0, (0, 1, 2), bare=bare, prompts=tuple(map(prompt, ("the ", "", "old red ")))
    )
    before, counts = plain.counted(rows)
    batch, prompted_counts = prompted.counted(rows)
    ids = batch["text_ids"]
    assert ids[0, 0] == ids[1, 1]
    assert ids[0, 1] == ids[1, 0]
    assert len({*ids[0].tolist()}) == 3
    # The sentences that occur in two views are two sentences with their prompts.
    assert (counts.tokens, prompted_counts.tokens) == (6, 10)
    assert (batch["lengths"] - before["lengths"]).tolist() == [[1, 0, 2], [1, 0, 0]]


@pytest.mark.parametrize(
    ("prompts", "columns", "data", "expected"),
    [
        (None, None, DataSpec("pairs"), ()),
        ("x: ", None, DataSpec("texts"), ("x: ",)),
        ({"text": "x: "}, None, DataSpec("texts"), ("x: ",)),
        ({"q": "x: ", "n2": "z: "}, ["q", "p", "n", "n2"], DataSpec("triplets", 2), None),
        ({"neg": "z: "}, None, DataSpec("triplets", 2), ("", "", "z: ", "z: ")),
        ({"hard_neg_1": "z: ", "pos": "y: "}, None, DataSpec("triplets", 1), ("", "y: ", "z: ")),
        ({"1": "y: "}, ["0", "1"], DataSpec("pairs"), ("", "y: ")),
    ],
)
def test_columns_are_found_by_their_names(
    prompts: Any, columns: Any, data: DataSpec, expected: Any
) -> None:
    section = DataSection(prompts=prompts, columns=columns)
    found = column_prompts(section, data).texts
    assert found == (("x: ", "", "z: ", "z: ") if expected is None else expected)


@pytest.mark.usefixtures("no_weights")
def test_an_unknown_column_is_refused(make_config: MakeConfig) -> None:
    for prompts, kind, message in (
        (
            {"positiv": "x "},
            "pairs",
            r"no column 'positiv' \(did you mean 'positive'\?\); known: anc",
        ),
        ({"positive": "x "}, "texts", "no column 'positive'; known: anchor$"),
        ({"negative": "x "}, "pairs", "no column 'negative'; known: anchor, positive$"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(make_config({"data": {"prompts": prompts}}, kind=kind))


def test_a_prompt_of_all_columns_can_be_left_out_of_the_vectors(
    make_config: MakeConfig, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_encoder_dir, tmp_path / "plain")
    SentenceEncoder.load(tmp_path / "plain").save(tmp_path / "start")
    edit_json(tmp_path / "start" / "1_Pooling" / "config.json", include_prompt=False)
    model = {"model": {"name": str(tmp_path / "start")}}
    one = {"data": {"prompts": "the dog "}}
    output = train(make_config(model, one, name="one", kind="pairs")).output
    encoder = SentenceEncoder.load(output)
    assert not encoder.include_prompt
    assert encoder.prompt == "the dog "
    two = {"data": {"prompts": {"anchor": "a cat "}}}
    with pytest.raises(ModelError, match=r"include_prompt = false.*set include_prompt to true"):
        train(make_config(model, two, name="two", kind="pairs"))
