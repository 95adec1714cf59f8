"""Print the lowest versions that pyproject.toml admits, as constraints for pip.

    python tests/lower_bounds.py > oldest.txt && pip install -e ".[dev]" -c oldest.txt

Torch is left out: which build there is depends on the machine (`make oldest TORCH=torch==2.7.0`).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lower_bounds() -> list[str]:
    """``name==version.*`` of every ``name>=version`` of the package and of its extras.

    The extras ``dev`` and ``docs`` are left out: they are tools, or repeat other extras.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tools = ("dev", "docs")
    lines = {*project["dependencies"]}.union(
        *(packages for name, packages in extras.items() if name not in tools)
    )
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)(?:; .*)?", line) for line in sorted(lines)]
    named = [match.groups() for match in found if match is not None]
    assert len(named) == len(found), "a dependency without a lower bound"
    return [f"{name}=={version}.*" for name, version in named if name != "torch"]


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
