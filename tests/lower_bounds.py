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

    Those of ``dev`` are tools, but for the extras that it repeats.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = {*project["dependencies"]}.union(*(extras[name] for name in extras if name != "dev"))
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in sorted(lines)]
    named = [match.groups() for match in found if match is not None]
    assert len(named) == len(found), "a dependency without a lower bound"
    return [f"{name}=={version}.*" for name, version in named if name != "torch"]


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
