"""Which of the CPU's instructions int8 products are computed with."""

from __future__ import annotations

import torch

__all__ = ["int8_instructions"]

_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8", "i8mm")


def int8_instructions() -> list[str] | None:
    """Instructions of this CPU that multiply int8 numbers and add them up in 32 bits.

    Returns:
        Their names, maybe none; None where torch cannot tell.
    """
    # Not in the older versions of torch.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return None
    found = capabilities()
    return [name for name in _INT8 if found.get(name)]
