"""Searchable collections of sentences on disk.

The names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Document": "documents",
    "Hit": "hits",
    "IndexSettings": "settings",
    "SearchIndex": "index",
}

__all__ = ["Document", "Hit", "IndexSettings", "SearchIndex"]

if TYPE_CHECKING:
    from simcse_kit.search.documents import Document
    from simcse_kit.search.hits import Hit
    from simcse_kit.search.index import SearchIndex
    from simcse_kit.search.settings import IndexSettings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'simcse_kit.search' has no attribute {name!r}")
    return getattr(import_module(f"simcse_kit.search.{_PUBLIC[name]}"), name)
