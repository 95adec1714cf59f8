"""Models of the Hugging Face Hub, opened from a cache on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.resolve import EMBEDDED
from simcse_kit.errors import ConfigError, ModelError, SimcseError

TEXTS = ["A dog runs.", "Prices rose."]
COMMITS = {"main": "1" * 40, "v1": "2" * 40}


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with the model owner/name: mean pooling in the main branch, max pooling in v1."""
    home = tmp_path / "cache" / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    for branch, commit in COMMITS.items():
        (home / "refs" / branch).write_text(commit, encoding="utf-8")
        shutil.copytree(EMBEDDED["small"], home / "snapshots" / commit)
    pooling = home / "snapshots" / COMMITS["v1"] / "1_Pooling" / "config.json"
    settings = json.loads(pooling.read_text(encoding="utf-8"))
    settings["pooling_mode"] = "max"
    pooling.write_text(json.dumps(settings), encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_revisions_are_opened_by_keyword_and_by_name() -> None:
    assert SentenceEncoder.load("owner/name").pooling == "mean"
    encoder = SentenceEncoder.load("owner/name", revision="v1", local_files_only=True)
    assert encoder.pooling == "max"
    for name in ("owner/name@v1", f"owner/name@{COMMITS['v1']}"):
        found = SentenceEncoder.load(name)
        np.testing.assert_array_equal(found.encode(TEXTS), encoder.encode(TEXTS))


def test_the_options_are_those_of_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options["revision"], options["token"], options["local_files_only"]))
        return str(EMBEDDED["small"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    SentenceEncoder.load("owner/name", revision="refs/pr/1", token="hf_abc")
    SentenceEncoder.load("name@v2", local_files_only=True)
    assert asked == [
        ("owner/name", "refs/pr/1", "hf_abc", False),
        ("name", "v2", None, True),
    ]

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="ConnectionError: no network, no such model") as caught:
        SentenceEncoder.load("owner/name@v1")
    assert "'owner/name@v1'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "revision", "kind", "message"),
    [
        ("owner/name", "v9", ModelError, r"'owner/name@v9' is not a local folder"),
        ("owner/none", None, ModelError, r"not in its cache, and local_files_only or HF_HUB_OFF"),
        ("owner/name@v1", "main", ConfigError, r"'owner/name@v1' and revision='main' name two"),
        ("small", "v1", ConfigError, r"revision='v1' applies to models of the Hugging Face Hub"),
    ],
)
def test_wrong_revisions_are_refused(
    name: str, revision: str | None, kind: type[SimcseError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        SentenceEncoder.load(name, revision=revision)
    assert "\n" not in str(caught.value)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="revison"):
        SentenceEncoder.load("owner/name", revison="v1")  # type: ignore[call-arg]
