"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

__all__ = ["parse_bytes"]

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}


def parse_bytes(size: str | int) -> int:
    """A size in bytes: ``"4GB"`` is 4·10⁹, ``"2GiB"`` is 2·2³⁰, a number alone is bytes.

    Raises:
        ValueError: this is no size above 0.
    """
    text = str(size).lower() if isinstance(size, (str, int)) else ""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    unit = _UNITS.get(match[2]) if match else None
    count = 0 if match is None or unit is None else int(float(match[1]) * unit)
    if count < 1:
        raise ValueError("must be a size such as 4GB, 500MB, 2GiB or a number of bytes")
    return count
