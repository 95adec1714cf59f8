"""Upload of an encoder to the Hugging Face Hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # the one of the HTTP library that this version uses
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)

from simcse_kit.encoder.folder.model_files import model_files
from simcse_kit.encoder.folder.save import save_encoder
from simcse_kit.encoder.hub.card import hub_card
from simcse_kit.encoder.inputs import shown
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.utils.files import sha256_of, write_atomic
from simcse_kit.utils.progress import bar_kind

__all__ = ["check_repository", "upload", "write_upload"]

logger = logging.getLogger(__name__)


def check_repository(name: str, token: str | None = None) -> None:
    """Refuse a name that is not ``owner/name``, and a token that is not one word.

    Raises:
        ConfigError: The name or the token cannot be used.

    Examples:
        >>> check_repository("owner/my-encoder")
    """
    if not isinstance(name, str) or name.count("/") != 1:
        raise ConfigError(
            f"the repository is {shown(name)}; give owner/name, such as my-team/my-encoder"
        )
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        reason = str(error).partition(":")[0].rstrip(".")
        raise ConfigError(
            f"the repository is {shown(name)}: {reason}; give owner/name, such as "
            "my-team/my-encoder"
        ) from None
    # The token itself is not shown, because messages end up in logs.
    if token is not None and (not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token)):
        raise ConfigError("the token is not one word of ASCII characters; copy it again")


def write_upload(
    encoder: EncoderModel,
    name: str,
    folder: Path,
    *,
    license: str | None = None,
    results: list[EvalResult] | None = None,
) -> None:
    """Write the files to upload: the encoder and its model card, without records of the training.

    Args:
        encoder: The encoder.
        name: Name of the repository, ``owner/name``.
        folder: A folder that is empty or does not exist.
        license: Identifier of a license on the Hub.
        results: Scores for the card.

    Raises:
        ConfigError: The folder is not empty, or is a file.
        ModelError: The folder cannot be written, or a file for the card cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give the name of a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; give an empty or a new folder")
    save_encoder(encoder, folder, card=None)
    changed = encoder.source is None or _differs(folder, encoder.source)
    card = hub_card(encoder, name, changed=changed, license=license, results=results or ())
    write_atomic(folder / "README.md", card, remedy="give another folder")


def _differs(folder: Path, source: Path) -> bool:
    """Whether a saved encoder gives other vectors than the one in its source folder."""
    for path in model_files(folder):
        name = path.relative_to(folder)
        # The versions of libraries in config.json do not matter.
        if path.suffix != ".safetensors" and name.as_posix() == "config.json":
            continue
        if not (source / name).is_file() or sha256_of(path) != sha256_of(source / name):
            logger.info("%s differs from %s: its text and scores are not used", name, source)
            return True
    return False


def upload(
    folder: Path, name: str, *, private: bool = True, token: str | None = None, exist_ok: bool
) -> str:
    """Create a repository and add the files of a folder to it in one commit.

    Args:
        folder: The folder.
        name: Name of the repository, ``owner/name``.
        private: Whether a new repository is private.
        token: Token with write access; by default the one of the Hub's login or ``HF_TOKEN``.
        exist_ok: Whether the repository may exist already.

    Returns:
        Address of the repository.

    Raises:
        ModelError: The Hub cannot be reached or refuses the upload.
    """
    hub = HfApi(token=token, library_name="simcse_kit")
    with _hub_errors(name, hub.endpoint, created=False):
        repository = hub.create_repo(name, private=private, exist_ok=exist_ok)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    with _hub_errors(name, hub.endpoint, created=True), _bars_on_terminals_only():
        hub.create_commit(
            repository.repo_id, operations, commit_message="Upload an encoder with simcse_kit"
        )
    return str(repository)


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Turn the progress bars of the Hub's client off where none can be shown."""
    if bar_kind() is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _hub_errors(name: str, endpoint: str, *, created: bool) -> Iterator[None]:
    """Convert the errors of the Hub's client to a ModelError."""
    try:
        yield
    except HfHubHTTPError as error:
        raise ModelError(_refusal(name, error, created=created)) from error
    # Errors of the transfer of large files are RuntimeErrors.
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ModelError(
            f"the upload to the Hub at {endpoint} failed: {reason}; check the network, HF_ENDPOINT "
            "and HF_HUB_OFFLINE, or write the files with --dry-run DIR (dry_run=DIR)"
            f"{_AGAIN if created else ''}"
        ) from error


_AGAIN = "; the repository exists now, so push again with --exist-ok (exist_ok=True)"


def _refusal(name: str, error: HfHubHTTPError, *, created: bool) -> str:
    status = error.response.status_code
    if status == 409 and not created:
        return (
            f"the repository {name} exists on the Hub; add a commit to it with --exist-ok "
            "(exist_ok=True), or give another name"
        )
    if status in (401, 403):
        what = "does not accept the token" if status == 401 else f"allows no writing to {name}"
        return (
            f"the Hub {what} (HTTP {status}); log in with `hf auth login`, or set HF_TOKEN to a "
            "token with write access to this owner"
        )
    reason = " ".join((error.server_message or str(error)).split())[:200].rstrip(".")
    again = _AGAIN if created else "; try again later"
    return f"the Hub refused the upload to {name} (HTTP {status}): {reason}{again}"
