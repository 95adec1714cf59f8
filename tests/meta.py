"""A stand-in for an accelerator: the meta device, on which every read of a value by the host fails.

A forward and backward pass runs there without data, and ``.item()``, ``.tolist()``, boolean
indexing and the like raise, as they would make the host wait on a GPU. :func:`operators` also
refuses what does not raise and waits on a GPU: copies from the host that are not ``non_blocking``.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")


@contextmanager
def operators() -> Iterator[Counter[str]]:
    """Count the operators on the meta device inside the block, and refuse copies that wait.

    Yields:
        Number of calls by the name of the operator.
    """
    with _NoCopies(), _Operators() as mode:
        yield mode.counts


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, _types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        given = [part for part in tree_leaves([arguments, keywords]) if isinstance(part, Tensor)]
        made = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        if any(part.device == META for part in given + made):
            name = str(function)
            # A tensor without axes is passed by value.
            if any(part.device != META and part.dim() for part in given):
                copy = name.startswith(("aten._to_copy", "aten.copy_", "aten.to."))
                waits = not (copy and (keywords.get("non_blocking") or True in arguments[2:]))
                assert not waits, f"{name} copies from the host and waits"
            self.counts[name] += 1
        return result


class _NoCopies(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, _types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        made = function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        assert not (made and result.device == META), "a tensor made of numbers waits for its copy"
        return result
