"""Progress bars on terminals and in notebooks."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

__all__ = ["bar_kind", "in_notebook", "progress_bar"]


def in_notebook() -> bool:
    """Check whether the process is a Jupyter kernel, whose stderr is shown in the notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def bar_kind() -> str | None:
    """Return ``"text"`` on a terminal, ``"widget"`` or ``"text"`` in a notebook, else None."""
    if sys.stderr is not None and sys.stderr.isatty():
        return "text"
    if not in_notebook():
        return None
    return "widget" if find_spec("ipywidgets") is not None else "text"


def progress_bar(total: int | None, *, shown: bool = True, **options: Any) -> Any:
    """Return a ``tqdm`` bar on stderr or in the notebook; close it, or use it in ``with``.

    Args:
        total: number of units; None if unknown, and then the bar has no time left.
        shown: whether to show the bar.
        options: further options of ``tqdm``, such as ``desc`` and ``unit``.
    """
    kind = bar_kind() if shown else None
    if kind == "widget":
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm

    return tqdm(total=total, disable=kind is None, **options)
