"""Checks of output paths, made before the work whose results go there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["check_distinct", "check_file_place", "check_folder_place", "check_result_places"]


def check_file_place(path: str | Path, option: str) -> Path:
    """Check that a file can be written, and return its path.

    Args:
        path: path of the file, which may exist.
        option: name of the option that gave the path, for messages.

    Raises:
        ConfigError: the path is a folder, a device or a pipe, its folder is missing, or the folder
            cannot be written to.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{option} {path} is a folder; give the name of a file")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option} {path} is not a regular file; give the name of a file")
        path.lstat()  # raises if the name is too long for the disk
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refusal(path, option, error) from None
    if not path.parent.is_dir():
        raise ConfigError(
            f"{option} {path}: the folder {path.parent} does not exist; create it first"
        )
    _try_to_write(path.parent, path, option)
    return path


def check_folder_place(path: str | Path, option: str) -> Path:
    """Check that a folder can be created or written to, and return its path.

    Args:
        path: path of the folder, which need not exist.
        option: name of the option that gave the path, for messages.

    Raises:
        ConfigError: the path or a part of it is not a folder, or it cannot be written to.
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
    """Refuse two options that name the same file.

    Args:
        places: path of each option, by its name; None if the option is not given.

    Raises:
        ConfigError: two paths are the same file.
    """
    seen: dict[str, str] = {}
    for option, path in places.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise ConfigError(
                f"{seen[real]} and {option} are the same file {path}; give them different names"
            )
        seen[real] = option


def check_result_places(
    json_file: str | None, report: str | None, pages: Sequence[str]
) -> tuple[Path | None, Path | None]:
    """Check the paths of ``--json`` and ``--report``.

    Args:
        json_file: the JSON file; ``-`` is standard output, None means no file.
        report: the report folder; None means no report.
        pages: names of the files of the report.

    Returns:
        The JSON file and the report folder; None for one that is not written.

    Raises:
        ConfigError: a path cannot be written, or both options would write the same file.
    """
    scores = None if json_file in (None, "-") else check_file_place(str(json_file), "--json")
    page = None if report is None else check_folder_place(report, "--report")
    if page is not None:
        check_distinct({"--json": scores, **{f"{name} of --report": page / name for name in pages}})
    return scores, page


def _try_to_write(folder: Path, path: Path, option: str) -> None:
    # Permissions alone are not enough to know; a nameless file is created.
    import tempfile  # slow to import, and most commands do not need it

    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refusal(path, option, error) from None


def _refusal(path: Path, option: str, error: OSError) -> ConfigError:
    reason = error.strerror or error
    return ConfigError(f"{option} {path} cannot be written: {reason}; give another place")
