"""Replacement of an earlier run by a new one, once the new one is complete.

Until then the new run is written into a separate folder next to that of the earlier run. At the end
the two folders are exchanged in one operation of the file system if it has one (Linux), otherwise
by two renames; :func:`finish_replacing` completes them after a crash between the two. A folder that
cannot be renamed (a mount point, or in a folder that is not writable) contains the new run until
the end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["begin_replacing", "finish_replacing", "new_run_in", "place_of_new_run", "put_in_place"]

_MARKER = ".replaces-earlier-run"
_INSIDE = ".new-run"
# Files and folders that a run writes; everything else belongs to the user and is kept.
_OF_A_RUN = (
    "run.toml metrics.jsonl result.json training.html README.md checkpoints key "
    "config.json config_sentence_transformers.json sentence_bert_config.json modules.json "
    "simcse.json model.safetensors special_tokens_map.json "
    "adapter_config.json adapter_model.safetensors adapter_base.json merged"
).split()
# Without these an incomplete encoder cannot be opened by mistake.
_LAST = ("config.json", "adapter_config.json")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def place_of_new_run(folder: Path) -> Path:
    """Return where a run that replaces the one in ``folder`` is written until it is complete."""
    real = folder.resolve()
    if os.path.ismount(real) or not os.access(real.parent, os.W_OK | os.X_OK):
        return folder / _INSIDE
    return real.with_name(f".{real.name}.new-run")


def new_run_in(folder: Path) -> Path | None:
    """Return the folder of an interrupted run that would have replaced the one in ``folder``."""
    place = place_of_new_run(folder)
    return place if (place / _MARKER).is_file() else None


def begin_replacing(place: Path) -> None:
    """Create the folder of a new run, and remove what an earlier attempt left there.

    Raises:
        OSError: the folder cannot be created.
    """
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    (place / _MARKER).touch()


def put_in_place(place: Path, folder: Path) -> None:
    """Replace the run in ``folder`` by the complete new one in ``place``.

    Files of the user in ``folder`` are kept.

    Raises:
        ConfigError: the file system refuses; both runs stay where they are.
    """
    try:
        if place.parent == folder:
            _move_up(place, folder)
        else:
            _keep_others(folder, place)
            _exchange(place, folder.resolve())
        (folder / _MARKER).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"the new run cannot replace {folder}: {error.strerror or error}; it is complete in "
            f"{place}"
        ) from None


def finish_replacing(folder: Path) -> None:
    """Complete an exchange that was interrupted between its two renames.

    Raises:
        OSError: a rename fails.
    """
    place, old = place_of_new_run(folder), _old(folder.resolve())
    if old.is_dir() and not folder.exists():
        (place if (place / _MARKER).is_file() else old).rename(folder.resolve())
    if old.is_dir() and folder.exists():
        shutil.rmtree(old, ignore_errors=True)


def _old(real: Path) -> Path:
    return real.with_name(f".{real.name}.old-run")


def _exchange(place: Path, real: Path) -> None:
    """Move the new run to ``real``; the old one is then at ``place`` or removed."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library without the call
            names = os.fsencode(place), os.fsencode(real)
            call = ctypes.CDLL(None, use_errno=True).renameat2
            if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
                return
            code = ctypes.get_errno()
            # File systems without an exchange, such as some over a network.
            if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise OSError(code, os.strerror(code))
    old = _old(real)
    shutil.rmtree(old, ignore_errors=True)
    real.rename(old)
    place.rename(real)
    shutil.rmtree(old, ignore_errors=True)


def _keep_others(folder: Path, place: Path) -> None:
    """Link the user's files of the old folder into the new one, so that no crash loses them."""
    for path in folder.iterdir():
        target = place / path.name
        if _is_of_a_run(path) or target.exists() or target.is_symlink():
            continue
        if path.is_symlink():
            target.symlink_to(path.readlink())
        elif path.is_dir():
            shutil.copytree(path, target, symlinks=True, copy_function=_link)
        else:
            _link(str(path), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _is_of_a_run(path: Path) -> bool:
    """Return whether training writes files or folders of that name."""
    name = path.name
    stage = name.partition("_")[0].isdecimal() and path.is_dir()  # 1_Pooling, 2_Dense
    weights = name.startswith(("model-", "model.safetensors", "tokenizer", "vocab", "merges"))
    hidden = name in (_MARKER, _INSIDE)
    return name in _OF_A_RUN or stage or weights or hidden


def _move_up(place: Path, folder: Path) -> None:
    """Move a new run out of its folder inside ``folder``; the files of ``_LAST`` come last."""
    names = sorted(path.name for path in place.iterdir())
    for name in _LAST:
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name not in names and path.name != _INSIDE and _is_of_a_run(path):
            _remove(path)
    for name in sorted(names, key=lambda name: name in _LAST):
        _remove(folder / name)
        (place / name).rename(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
