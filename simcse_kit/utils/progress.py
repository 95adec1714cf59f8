"""Progress bars, wherever somebody can see them: on a terminal and in a notebook."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["bar_kind", "in_notebook", "progress_bar"]


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose stderr is shown although it is no terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def bar_kind() -> str | None:
    """``"text"`` on a terminal, ``"widget"`` or ``"text"`` in a notebook, None elsewhere."""
    if sys.stderr is not None and sys.stderr.isatty():
        return "text"
    if not in_notebook():
        return None
    return "widget" if find_spec("ipywidgets") is not None else "text"


def progress_bar(total: int | None, *, shown: bool = True, **options: Any) -> Any:
    """A bar on stderr or in the notebook, with the time left if ``total`` is known.

    Args:
        total: number of units.
        shown: False for none.
        options: others of ``tqdm``, such as ``desc`` and ``unit``.

    Returns:
        A ``tqdm`` bar, to be used as a context manager or to be closed.
    """
    kind = bar_kind() if shown else None
    if kind == "widget":
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm

    return tqdm(total=total, disable=kind is None, **options)
