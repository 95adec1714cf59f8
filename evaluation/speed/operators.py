"""Count the operators of a training pass on an accelerator, without one.

    python evaluation/speed/operators.py

Runs a forward and backward pass on the meta device, which computes nothing: once in the model's
own code on a padded batch without a mask, once packed. The attention kernel, which the meta device
lacks in the backward pass, is replaced by one operator in each direction.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from simcse_kit.encoder.packing import kernels
from simcse_kit.encoder.packing.layout import pack
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.pooling import pool_packed
from simcse_kit.encoder.row_lengths import remember_lengths

META = torch.device("meta")
FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet")


class Count(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return function(*args, **(kwargs or {}))


def counted(run: Callable[[], torch.Tensor], model: Any) -> int:
    model.zero_grad()
    with Count() as mode:
        run().sum().backward()
    return mode.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rows", type=int, default=128)
    layers, rows = vars(parser.parse_args()).values()
    for name in kernels.KERNELS:
        kernels.KERNELS[name] = lambda query, _, value, *__: query * value
    lengths = np.array([random.Random(row).randint(4, 32) for row in range(rows)])
    ids = torch.zeros(rows, 32, dtype=torch.int64, device=META)
    mask = remember_lengths(torch.ones_like(ids), lengths)
    print("family       own  packed  packed / own")
    for family in FAMILIES:
        config = transformers.AutoConfig.for_model(family)
        setattr(config, "n_layers" if family == "distilbert" else "num_hidden_layers", layers)
        with META:
            model: Any = transformers.AutoModel.from_config(config).train()
        model.pooler = None

        def own(model: Any = model) -> torch.Tensor:
            states = model(input_ids=ids).last_hidden_state
            return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

        def packed(model: Any = model) -> torch.Tensor:
            tokens, layout = pack(ids, mask)
            return pool_packed("mean", packed_states(model, tokens, layout), layout)

        before, after = counted(own, model), counted(packed, model)
        print(f"{family:10} {before:5} {after:7} {after / before:13.2f}")


if __name__ == "__main__":
    main()
