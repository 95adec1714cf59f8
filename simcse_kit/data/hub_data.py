"""Data sets of the Hugging Face Hub: opening a split, and copies of it in the cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from operator import eq
from pathlib import Path
from typing import Any

from simcse_kit.data.columns import choose_columns
from simcse_kit.data.corpus_cache import COPY_REMEDY, copy_place
from simcse_kit.data.files import first_line
from simcse_kit.data.graded import SCORE_NAMES
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.registry import closest
from simcse_kit.utils.files import replacement

__all__ = ["copy_data_set", "is_data_set", "open_split"]

logger = logging.getLogger(__name__)

_FORM = "hf:owner/name:split#column, such as hf:sentence-transformers/all-nli:train#anchor,positive"
# The split may be a part, such as train[:1000]. A third part of the name is the configuration.
_DATA_SET = re.compile(r"hf:([^#]+?)(?::(\w[^:#/\[]*(?:\[[^\]]*\])?))?(?:#(.+))?")


def is_data_set(name: str | Path) -> bool:
    """Check whether a name is that of a data set of the Hub."""
    return isinstance(name, str) and name.startswith("hf:") and not name.startswith("hf://")


def open_split(repository: str, split: str, *, remedy: str, config: str | None = None) -> Any:
    """Open one split of a data set from the Hub, its local cache or a folder.

    Args:
        repository: Name of the data set, or a folder.
        split: Name of the split.
        remedy: Advice for the error message.
        config: Name of the configuration; None for a data set that has only one.

    Returns:
        The split, a ``datasets.Dataset``.

    Raises:
        DataError: The split cannot be opened, for example without a network.
    """
    try:
        # Imported here, because it takes a second and most runs read files.
        from datasets import load_dataset

        return load_dataset(repository, config, split=split)
    except Exception as error:  # without a network the client raises many unrelated types
        raise DataError(
            f"cannot download {repository} ({split}) from the Hub ({first_line(error)}); check the "
            f"network, or {remedy}"
        ) from error


def copy_data_set(name: str) -> Path:
    """Write a split of a data set to a .parquet file in the cache."""
    match = _DATA_SET.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} is not the name of a data set; write {_FORM}")
    repository, split, columns = match[1], match[2] or "train", match[3]
    config = None
    if not Path(repository).is_dir():
        owner, *rest = repository.split("/")
        if len(rest) > 2:
            raise ConfigError(f"{name!r} is neither a folder nor a data set; write {_FORM}")
        repository = "/".join([owner, *rest[:1]])
        config = rest[1] if len(rest) == 2 else None
    table = open_split(repository, split, config=config, remedy="give another name or a file")
    if columns is not None:
        table = _chosen(table, [column.strip() for column in columns.split(",")], name)
    stem = re.sub(r"\W+", "-", f"{Path(repository).name}-{split}").strip("-")
    target = copy_place(f"{name}{table._fingerprint}", f"{stem}.parquet")
    if not target.exists():
        with replacement(target, remedy=COPY_REMEDY) as temporary:
            table.to_parquet(str(temporary))
    logger.info("%s: %d rows, copied to %s", name, len(table), target)
    return target


def _chosen(table: Any, columns: Sequence[str], name: str) -> Any:
    """Keep some columns, under names that training files have."""
    for column in columns:
        if column not in table.column_names:
            raise DataError(
                f"no column {column!r}{closest(column, table.column_names)}; the columns are "
                f"{', '.join(table.column_names)}",
                file=name,
            )
    table = table.select_columns(list(columns))
    known: Sequence[str] = ()
    with suppress(DataError):
        known = choose_columns(columns, None, file=name, line=None, lists=True)
    if known and all(map(eq, known, columns)):  # in the order that the reader expects
        return table
    return table.rename_columns(dict(zip(columns, _usual_names(columns), strict=True)))


def _usual_names(columns: Sequence[str]) -> list[str]:
    if len(columns) == 1:
        return ["text"]
    if len(columns) == 3 and columns[2].lower() in SCORE_NAMES:
        return ["sentence1", "sentence2", "score"]
    return ["anchor", "positive", *(f"negative_{place}" for place in range(1, len(columns) - 1))]
