"""Models by revision, from the cache of the Hub, and static embeddings, on the command line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from simcse_kit.encoder.folder.resolve import EMBEDDED
from tests.cli.conftest import Simcse


def test_commands_take_revisions(
    simcse: Simcse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hub" / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "v1").write_text("1" * 40, encoding="utf-8")
    shutil.copytree(EMBEDDED["small"], home / "snapshots" / ("1" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    done = simcse("info", "owner/name@v1", "--json")
    assert (done.code, json.loads(done.out)["dim"]) == (0, 256)
    done = simcse("info", "owner/name@v2")
    assert done.code == 2
    assert "'owner/name@v2' is not a local folder and could not be fetched" in done.err
    assert done.err.count("\n") == 1


def test_token_and_local_files_only_reach_the_hub(
    simcse: Simcse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
    done = simcse("--token", "hf_abc", "--local-files-only", "similarity", "owner/none", "a", "b")
    assert done.code == 2
    assert "local_files_only or HF_HUB_OFFLINE allows no download" in done.err
    assert huggingface_hub.get_token() == "hf_abc"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_commands_take_static_embeddings(simcse: Simcse, pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    shutil.copy(EMBEDDED["mini"] / "tokenizer.json", folder)
    table = torch.randn(12_000, 16, generator=torch.Generator().manual_seed(2))
    save_file({"embeddings": table}, folder / "model.safetensors")
    settings = {"model_type": "model2vec", "normalize": True}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    done = simcse("info", folder, "--json")
    assert (done.code, json.loads(done.out)["architecture"]) == (0, "StaticBackbone")
    done = simcse("eval", folder, "--tasks", pairs)
    assert done.code == 0, done.err
    done = simcse("encode", folder, pairs, "--columns", "1", "--output", tmp_path / "vectors.npy")
    assert done.code == 0, done.err
