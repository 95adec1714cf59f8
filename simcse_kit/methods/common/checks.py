"""Whether a method can learn from the data and the batches of a run. Needs no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind

__all__ = ["check_batch", "check_reads", "negatives_text"]

_ROWS = {
    "texts": "one sentence a row",
    "pairs": "two texts a row (anchor, positive)",
    "triplets": "three or more texts a row (anchor, positive, hard negatives)",
    "labelled": "two texts and a number a row; data.label names the column of the number",
    "documents": "sentences in order, a blank line after each document; data.documents = 1 or more",
}


def check_batch(
    method: type[Method], options: MethodConfig, batch_size: int, kind: Kind, negatives: int = 0
) -> None:
    """Refuse a batch that a method cannot learn from. Needs no weights.

    Raises:
        ConfigError: there are no negatives, or one row where a method needs several, or the queue
            holds less than a batch, or the options do not fit the kind of data.
    """
    method.check_data(options, kind)
    if method.needs_negatives and method.negatives_per_anchor(batch_size, kind, negatives) < 1:
        raise ConfigError(
            f"training.batch_size is {batch_size}, which leaves {kind} no negatives to learn "
            "from; use --batch-size 2 or more"
        )
    if batch_size < 2 and not method.needs_negatives and kind != "labelled":
        raise ConfigError(
            f"training.batch_size is {batch_size}, but method {method.name!r} compares the rows "
            "of a batch in its BatchNorm layers; use --batch-size 2 or more"
        )
    size = method.queue_size(options)
    if 0 < size < batch_size:
        raise ConfigError(
            f"method.queue_size is {size}, less than a batch of {batch_size} brings; use "
            f"--set method.queue_size={batch_size} or more, or a smaller --batch-size"
        )


def negatives_text(
    method: type[Method], options: MethodConfig, batch_size: int, kind: Kind, negatives: int = 0
) -> str:
    """How many negatives an anchor meets, in words."""
    if not method.needs_negatives:
        return "no negatives"
    count = method.negatives_per_anchor(batch_size, kind, negatives)
    size = method.queue_size(options)
    return f"{count} negatives per anchor" + (f", up to {size} from the queue" if size else "")


def check_reads(method: type[Method], kind: str) -> None:
    """Refuse data that a method cannot read. Needs the class only, no weights.

    Raises:
        ConfigError: ``kind`` is not among ``method.reads``.
    """
    if kind in method.reads:
        return
    wanted = "; ".join(f"{known} = {_ROWS[known]}" for known in method.reads)
    raise ConfigError(
        f"method {method.name!r} cannot read {kind!r} data; it reads {', '.join(method.reads)} "
        f"({wanted}); choose the columns of the training file to match, or another method"
    )
