"""Uploads to a Hub on this machine through huggingface_hub's own client, and the model card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError, SimcseError
from tests.fake_hub import DEPRECATED, TOKEN, FakeHub, reachable_hub

NAME = "my-team/my-encoder"

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with reachable_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir, pooling="mean", device="cpu")


@pytest.fixture
def trained(encoder: SentenceEncoder, tmp_path: Path) -> Path:
    """The output folder of a training run, as far as the card reads it."""
    folder = tmp_path / "run"
    encoder.save(folder)
    (folder / "run.toml").write_text(
        '[model]\nname = "bert-base-uncased"\n'
        '[data]\ntrain = ["/home/me/own.txt", "hf:owner/nli:train#premise", "hf:owner/nli"]\n'
        '[evaluation]\ndev = "/home/me/sts.tsv"\n'
    )
    result = {"score_name": "dev_spearman", "start_score": 40.0, "best_score": 82.5}
    (folder / "result.json").write_text(json.dumps({**result, "improved": True}))
    return folder


def card_of(encoder: SentenceEncoder, folder: Path, **options: Any) -> ModelCard:
    assert encoder.push_to_hub(NAME, dry_run=folder, **options) == str(folder)
    return ModelCard.load(folder / "README.md")


def test_what_arrives_at_the_hub_is_what_a_dry_run_writes(
    hub: FakeHub, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    assert encoder.push_to_hub(NAME, token=TOKEN) == f"{hub.address}/{NAME}"
    encoder.push_to_hub(NAME, dry_run=tmp_path / "dry")
    written = {
        path.relative_to(tmp_path / "dry").as_posix(): path.read_bytes()
        for path in (tmp_path / "dry").rglob("*")
        if path.is_file()
    }
    assert hub.files[NAME] == written
    assert {"README.md", "model.safetensors", "modules.json"} <= set(written)
    assert hub.commits[NAME] == 1


def test_the_uploaded_files_give_the_same_vectors(
    hub: FakeHub, encoder: SentenceEncoder, tmp_path: Path
) -> None:
    encoder.push_to_hub(NAME, token=TOKEN)
    for name, content in hub.files[NAME].items():
        path = tmp_path / "down" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    texts = ["a cat sat .", "the dog ran ."]
    again = SentenceEncoder.load(tmp_path / "down", device="cpu")
    assert np.array_equal(again.encode(texts), encoder.encode(texts))


def test_repositories_are_private_unless_asked_otherwise(
    hub: FakeHub, encoder: SentenceEncoder
) -> None:
    encoder.push_to_hub(NAME, token=TOKEN)
    encoder.push_to_hub("my-team/open", token=TOKEN, private=False)
    assert hub.visibility == {NAME: "private", "my-team/open": "public"}


def test_an_existing_repository_gets_a_commit_only_on_request(
    hub: FakeHub, encoder: SentenceEncoder
) -> None:
    encoder.push_to_hub(NAME, token=TOKEN)
    with pytest.raises(ModelError, match=r"exists on the Hub; add a commit .*exist_ok=True"):
        encoder.push_to_hub(NAME, token=TOKEN)
    assert hub.commits[NAME] == 1
    encoder.push_to_hub(NAME, token=TOKEN, exist_ok=True, license="mit")
    assert hub.commits[NAME] == 2
    assert b"license: mit" in hub.files[NAME]["README.md"]


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        (NAME, "hf_wrong", r"does not accept the token \(HTTP 401\).*hf auth login"),
        ("another-team/x", TOKEN, r"allows no writing to another-team/x \(HTTP 403\).*HF_TOKEN"),
    ],
)
def test_a_token_without_the_right_to_write_is_refused(
    hub: FakeHub, encoder: SentenceEncoder, name: str, token: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        encoder.push_to_hub(name, token=token)
    assert token not in str(caught.value)
    assert hub.files == {}


def test_an_upload_that_fails_after_the_repository_was_created_names_the_way_on(
    hub: FakeHub, encoder: SentenceEncoder
) -> None:
    hub.down = 400
    with pytest.raises(ModelError, match=r"HTTP 400\): .*a pause; .*exist_ok=True"):
        encoder.push_to_hub(NAME, token=TOKEN)
    hub.down = 0
    encoder.push_to_hub(NAME, token=TOKEN, exist_ok=True)
    assert hub.commits[NAME] == 1


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_named(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"http://127.0.0.1:9 failed: .*dry_run=DIR"):
        encoder.push_to_hub(NAME, token=TOKEN)


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("my-encoder", None, "owner/name"),
        ("a/b/c", None, "owner/name"),
        ("my-team/my--encoder", None, "Cannot have -- or .. in repo_id; give owner/name"),
        ("my team/x", None, "alphanumeric"),
        (Path("a/b"), None, "owner/name"),
        (NAME, "hf_secret\n", "the token is not one word"),
    ],
)
def test_bad_names_and_tokens_are_refused_before_any_work(
    encoder: SentenceEncoder, name: Any, token: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        encoder.push_to_hub(name, token=token)
    assert "secret" not in str(caught.value)


def test_a_dry_run_needs_an_empty_folder(encoder: SentenceEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"is not empty|is a file"):
            encoder.push_to_hub(NAME, dry_run=folder)


def test_the_card_has_the_metadata_of_the_run_and_no_local_path(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "simcse_kit.encoder.hub.run_metadata.try_to_load_from_cache", lambda *_: "config.json"
    )
    card = card_of(SentenceEncoder.load(trained), tmp_path / "dry", license="apache-2.0")
    data = card.data
    assert data.pipeline_tag == "sentence-similarity"
    assert data.library_name == "sentence-transformers"
    assert data.license == "apache-2.0"
    assert data.base_model == "bert-base-uncased"
    assert data.datasets == ["owner/nli"]
    assert {"sentence-transformers", "sentence-similarity", "simcse"} == set(data.tags)
    [result] = data.eval_results
    assert (result.dataset_name, result.metric_type) == ("sts", "spearman_cosine")
    assert result.metric_value == 0.825
    assert f'SentenceEncoder.load("{NAME}")' in card.text
    assert "path/to/this/folder" not in card.text
    assert not (tmp_path / "dry" / "run.toml").exists()
    assert "/home/me" not in card.content


def test_a_start_model_that_never_came_from_the_hub_is_not_a_base_model(
    trained: Path, tmp_path: Path
) -> None:
    assert card_of(SentenceEncoder.load(trained), tmp_path / "dry").data.base_model is None


def test_folders_of_this_machine_are_not_in_the_card(trained: Path, tmp_path: Path) -> None:
    with (trained / "README.md").open("a", encoding="utf-8") as card:
        card.write(
            "| Start | /home/me/my models/base |\n"
            "| Teachers | st:/home/me/one, owner/two, /home/me/three |\n"
            "| Encoder key | in the subfolder key/, which opens like this folder |\n"
        )
    text = card_of(SentenceEncoder.load(trained), tmp_path / "dry").text
    assert "| Start | base |\n| Teachers | st:one, owner/two, three |\n" in text
    assert "subfolder" not in text


def test_a_run_that_did_not_help_has_the_score_of_its_start(trained: Path, tmp_path: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    (trained / "result.json").write_text(json.dumps(result | {"improved": False}))
    data = card_of(SentenceEncoder.load(trained), tmp_path / "dry").data
    assert data.eval_results[0].metric_value == 0.4


def test_scores_of_the_run_are_left_out_for_a_changed_encoder(
    trained: Path, tmp_path: Path
) -> None:
    assert card_of(SentenceEncoder.load(trained), tmp_path / "same").data.eval_results
    other = SentenceEncoder.load(trained, pooling="max")
    assert card_of(other, tmp_path / "pooling").data.eval_results is None
    other = SentenceEncoder.load(trained)
    next(other.parameters()).data += 0.1
    assert card_of(other, tmp_path / "weights").data.eval_results is None


def test_an_edited_card_keeps_its_text_license_and_results(trained: Path, tmp_path: Path) -> None:
    card = ModelCard.load(trained / "README.md")
    card.data.license, card.data.language = "cc-by-4.0", ["en"]
    card.data.tags = [*card.data.tags, "medical"]
    card.text += "\nMade for clinics.\n"
    card.save(trained / "README.md")
    found = card_of(SentenceEncoder.load(trained), tmp_path / "dry")
    assert found.text.endswith("Made for clinics.\n")
    assert (found.data.license, found.data.language) == ("cc-by-4.0", ["en"])
    assert "medical" in found.data.tags
    assert len(found.data.eval_results) == 1


def test_scores_of_an_evaluation_are_added(trained: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sts = {"spearman": 70.0, "pearson": None}
    clusters = {"kind": "clustering", "main": "v_measure", "metrics": {"v_measure": 45.0}}
    document = {"tasks": {"STS12": sts}, "beyond_sts": {"News": clusters}}
    report.write_text(json.dumps({"schema": 1, "reports": [{"tasks": {}}, document]}))
    data = card_of(SentenceEncoder.load(trained), tmp_path / "dry", report=report).data
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in data.eval_results] == [
        ("sts", "spearman_cosine", 0.825),
        ("STS12", "spearman_cosine", 0.7),
        ("News", "v_measure", 0.45),
    ]
    assert [one.task_type for one in data.eval_results][-1] == "clustering"


@pytest.mark.parametrize("content", ['{"tasks": {}}', "[1]", "no JSON"])
def test_a_report_without_scores_is_refused(
    encoder: SentenceEncoder, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(SimcseError, match=r"report\.json"):
        encoder.push_to_hub(NAME, report=path, dry_run=tmp_path / "dry")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "---\nlicense: [\n---\n"),
        ("README.md", "---\n- a list\n---\n"),
        ("run.toml", "[model"),
        ("result.json", "{"),
    ],
)
def test_damaged_records_are_named(trained: Path, tmp_path: Path, name: str, content: str) -> None:
    encoder = SentenceEncoder.load(trained)
    (trained / name).write_text(content)
    with pytest.raises(ModelError, match=name):
        encoder.push_to_hub(NAME, dry_run=tmp_path / "dry")
    (trained / name).unlink()
    encoder.push_to_hub(NAME, dry_run=tmp_path / "again")


def test_a_model_of_the_hub_is_the_base_model_and_its_license_stays(
    encoder: SentenceEncoder, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--owner--base" / "snapshots" / "0123abc"
    encoder.save(snapshot, card="---\nlicense: mit\npipeline_tag: fill-mask\n---\n# A model\n")
    loaded = SentenceEncoder.load(snapshot)
    card = card_of(loaded, tmp_path / "dry")
    assert (card.data.base_model, card.data.license) == ("owner/base", "mit")
    assert card.data.pipeline_tag == "sentence-similarity"
    assert "# A model" not in card.text
    assert repr(loaded).startswith("SentenceEncoder('owner/base', pooling='mean', dimensions=32")


def test_the_description_of_an_encoder_is_one_line() -> None:
    assert repr(SentenceEncoder.load("mini", device="cpu")) == (
        "SentenceEncoder('mini', pooling='mean', dimensions=256, max_length=64, device='cpu')"
    )
