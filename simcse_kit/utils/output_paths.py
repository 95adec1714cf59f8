"""Places for files and folders, checked before the work whose results go there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["check_distinct", "check_file_place", "check_folder_place", "check_result_places"]


def check_file_place(path: str | Path, option: str) -> Path:
    """``path`` as a Path, once it is known that a file can be written there.

    Args:
        path: of a file that may exist.
        option: what the user named it with, for messages.

    Raises:
        ConfigError: it is a folder, a device or a pipe, its folder is missing, or nothing can be
            written into that.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{option} {path} is a folder; give the name of a file")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option} {path} is no regular file; give the name of a file")
        path.lstat()  # a name too long for the disk shows here
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refusal(path, option, error) from None
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}; make it first")
    _try_to_write(path.parent, path, option)
    return path


def check_folder_place(path: str | Path, option: str) -> Path:
    """``path`` as a Path, once it is known that a folder with files can be made or filled there.

    Args: as for :func:`check_file_place`.

    Raises:
        ConfigError: it or a folder above it is something else, or nothing can be written there.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{option} {path} is a file; give the name of a folder")
        above = path.absolute()
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise ConfigError(
                f"{option} {path}: {above} is a file; give a folder below another folder"
            )
    except OSError as error:
        raise _refusal(path, option, error) from None
    _try_to_write(above, path, option)
    return path


def check_distinct(places: Mapping[str, str | Path | None]) -> None:
    """Refuse two places that are one file.

    Args:
        places: by the option that names each; None where it is not given.

    Raises:
        ConfigError: two are the same.
    """
    seen: dict[str, str] = {}
    for option, path in places.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise ConfigError(
                f"{seen[real]} and {option} are the same file {path}; give each a name of its own"
            )
        seen[real] = option


def check_result_places(
    json_file: str | None, report: str | None, pages: Sequence[str]
) -> tuple[Path | None, Path | None]:
    """The places of ``--json`` and ``--report``, checked.

    Args:
        json_file: a file; None for none, and ``-`` for standard output.
        report: a folder; None for none.
        pages: names of the files in that folder.

    Raises:
        ConfigError: one of them cannot be written, or both would write one file.
    """
    scores = None if json_file in (None, "-") else check_file_place(str(json_file), "--json")
    page = None if report is None else check_folder_place(report, "--report")
    if page is not None:
        check_distinct({"--json": scores, **{f"{name} of --report": page / name for name in pages}})
    return scores, page


def _try_to_write(folder: Path, path: Path, option: str) -> None:
    """Permissions and kinds of disk say too little; a file is made, without a name."""
    import tempfile  # most commands do without it, and `--help` is quick

    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refusal(path, option, error) from None


def _refusal(path: Path, option: str, error: OSError) -> ConfigError:
    reason = error.strerror or error
    return ConfigError(f"{option} {path} cannot be written: {reason}; give another place")
