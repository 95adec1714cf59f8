"""Checks, before any weights are loaded, that a method can learn from data and batches."""

from __future__ import annotations

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.contrast import DataSpec
from simcse_kit.methods.common.teachers import TeacherConfig

__all__ = ["check_batch", "check_reads", "chunking_obstacle"]

_ROWS = {
    "texts": "one sentence per row",
    "pairs": "two texts per row (anchor, positive)",
    "triplets": "three or more texts per row (anchor, positive, hard negatives)",
    "labelled": "two texts and a number per row, in column score or the one data.label names",
    "documents": "sentences in order, a blank line after each document; data.documents = 1 or more",
}


def check_batch(
    method: type[Method], options: MethodConfig, data: DataSpec, batch_size: int
) -> None:
    """Refuse a batch that a method cannot learn from.

    Args:
        method: the class of the method.
        options: its options.
        data: the form of the training data.
        batch_size: rows in one forward pass.

    Raises:
        ConfigError: an anchor has no negatives, BatchNorm gets a single row, the queue is smaller
            than a batch, or the options do not fit the data.
    """
    options.check_data(data)
    contrast = options.contrast(data, batch_size)
    if contrast.needed and contrast.in_batch < 1:
        raise ConfigError(
            f"training.batch_size is {batch_size}, which leaves no negatives for {data.kind}; "
            "use --batch-size 2 or more"
        )
    if not contrast.needed and batch_size < options.fewest_rows(data):
        plain = data.kind == "labelled" or isinstance(options, TeacherConfig)
        where = "" if plain else " in its BatchNorm layers"
        raise ConfigError(
            f"training.batch_size is {batch_size}, but method {method.name!r} compares the rows "
            f"of a batch{where}; use --batch-size 2 or more"
        )
    if 0 < contrast.queue < batch_size:
        raise ConfigError(
            f"method.queue_size is {contrast.queue}, less than a batch of {batch_size}; use "
            f"--set method.queue_size={batch_size} or more, or a smaller --batch-size"
        )


def chunking_obstacle(method: type[Method], options: MethodConfig) -> str | None:
    """Return why the batches of a method cannot be embedded in chunks; None if they can."""
    if method.loss is Method.loss:
        return "its loss is not written as a function of the embeddings"
    return options.chunking_obstacle()


def check_reads(method: type[Method], kind: str) -> None:
    """Refuse data that a method cannot read.

    Raises:
        ConfigError: ``kind`` is not among ``method.reads``.
    """
    if kind in method.reads:
        return
    if kind == "labelled":
        raise ConfigError(
            f"method {method.name!r} cannot read {kind!r} data, which has a score in every row; it "
            f"reads {', '.join(method.reads)}; use --preset graded, or --method graded without a "
            "preset, or leave the scores out with --columns sentence1,sentence2"
        )
    wanted = "; ".join(f"{known} = {_ROWS[known]}" for known in method.reads)
    raise ConfigError(
        f"method {method.name!r} cannot read {kind!r} data; it reads {', '.join(method.reads)} "
        f"({wanted}); choose the columns of the training file to match, or another method"
    )
