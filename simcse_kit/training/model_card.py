"""The model card of a trained encoder."""

from __future__ import annotations

from collections.abc import Mapping

from simcse_kit.encoder.folder.save import default_card
from simcse_kit.methods.common.base import Method
from simcse_kit.utils.tables import escaped

__all__ = ["training_card"]


def training_card(method: Method, summary: Mapping[str, str]) -> str:
    """README.md of the saved folder: how to use it, how it was made, what to cite."""
    facts = "\n".join(f"| {escaped(name)} | {escaped(value)} |" for name, value in summary.items())
    paper = method.paper
    source = (
        f"Method `{method.name}`"
        if paper is None
        else f"Method: *{paper.title}* ({paper.year}), <https://arxiv.org/abs/{paper.arxiv}>"
    )
    return f"""{default_card(method.encoder)}
## Training

| | |
|---|---|
{facts}

The whole configuration is in `run.toml`, the curves are in `training.html`.

{source}
"""
