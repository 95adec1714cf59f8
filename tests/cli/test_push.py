"""`simcse push`"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Simcse
from tests.fake_hub import DEPRECATED, TOKEN, reachable_hub

NAME = "my-team/my-encoder"

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.mark.long
def test_push_uploads_once_and_then_only_with_exist_ok(
    simcse: Simcse, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = ("push", tiny_encoder_dir, NAME, "--pooling", "mean")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with reachable_hub(monkeypatch) as hub:
        done = simcse(*push)
        assert (done.code, done.out) == (0, f"{hub.address}/{NAME}\n"), done.err
        assert hub.visibility[NAME] == "private"
        again = simcse(*push)
        assert (again.code, again.out) == (2, "")
        assert "add a commit to it with --exist-ok" in again.err
        assert simcse(*push, "--exist-ok", "--license", "mit").code == 0
        assert b"license: mit" in hub.files[NAME]["README.md"]
        assert simcse("push", tiny_encoder_dir, "my-team/open", "--public").code == 0
        assert hub.visibility["my-team/open"] == "public"
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        refused = simcse("push", tiny_encoder_dir, "my-team/third")
        assert (refused.code, refused.out) == (2, "")
        assert "does not accept the token" in refused.err


def test_push_without_a_network_names_the_dry_run_which_works(
    simcse: Simcse, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    refused = simcse("push", tiny_encoder_dir, NAME)
    assert (refused.code, refused.out) == (2, "")
    assert "or write the files with --dry-run DIR" in refused.err
    assert refused.err.count("simcse: error") == 1
    done = simcse("push", tiny_encoder_dir, NAME, "--dry-run", tmp_path / "dry")
    assert (done.code, done.out) == (0, f"{tmp_path / 'dry'}\n"), done.err
    assert (tmp_path / "dry" / "model.safetensors").is_file()


def test_push_refuses_a_bad_name_before_it_opens_the_model(simcse: Simcse) -> None:
    refused = simcse("push", "no-such-model", "my--team/x")
    assert (refused.code, refused.out) == (2, "")
    assert "give owner/name" in refused.err
