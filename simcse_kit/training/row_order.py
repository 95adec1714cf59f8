"""Order of the training rows from the settings of the table ``[data]``."""

from __future__ import annotations

import logging
from itertools import accumulate, pairwise

from simcse_kit.config import DataSection, RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.find import find_files
from simcse_kit.data.streamed import WINDOW, StreamedCorpus
from simcse_kit.errors import ConfigError
from simcse_kit.training.batching.distinct import DistinctBatches
from simcse_kit.training.batching.files_order import FilesOrder
from simcse_kit.training.batching.order import EpochOrder, ShuffledOrder
from simcse_kit.training.batching.shard_order import ShardOrder
from simcse_kit.training.batching.subset import RowSubset

__all__ = ["check_weights", "draws_by_file", "row_order", "unused_sampling"]

logger = logging.getLogger(__name__)


def check_weights(data: DataSection) -> None:
    """Check that there is one weight for each entry of ``data.train``.

    Raises:
        ConfigError: the numbers differ.
    """
    if data.weights is not None and len(data.weights) != len(data.train):
        raise ConfigError(
            f"the length of data.weights is {len(data.weights)}, that of data.train "
            f"{len(data.train)}; give one weight for each file or folder, in the same order"
        )


def draws_by_file(data: DataSection) -> bool:
    """Check whether the order depends on which file a row comes from."""
    return data.weights is not None or data.sampling != "proportional"


def unused_sampling(data: DataSection) -> list[str]:
    """List the settings of sampling that have no effect, one sentence for each."""
    settings = {"weights": data.weights, "sampling": data.sampling}
    return [
        f"data.{name} = {value} has no effect: data.train has one entry"
        for name, value in settings.items()
        if len(data.train) == 1 and value not in (None, "proportional")
    ]


def row_order(config: RunConfig, corpus: Corpus, rows: RowSubset) -> EpochOrder:
    """Construct the order in which training reads the rows.

    Args:
        config: the configuration of the run.
        corpus: the training text, with the number of rows of each file if the order needs it.
        rows: the rows to train on.

    Raises:
        ConfigError: an entry of ``data.train`` has too few rows, or too small a weight.
        DataError: no batch without duplicates can be made.
    """
    data, seed, batch_size = config.data, config.training.seed, config.training.batch_size
    order: EpochOrder = ShuffledOrder(len(rows), seed)
    if isinstance(corpus, StreamedCorpus):
        order = ShardOrder(corpus.shard_rows, window=WINDOW, seed=seed, expect=corpus.expect)
    if draws_by_file(data):
        files = _entries(data, corpus, rows)
        equal = data.sampling == "round_robin"
        weights = data.weights or [1.0 if equal else len(file) for file in files]
        order = FilesOrder(files, weights, data.sampling, batch_size=batch_size, seed=seed)
        for name, file, passes in zip(data.train, files, order.passes, strict=True):
            logger.info("%s: %d rows, %.2f passes in an epoch", name, len(file), passes)
    if data.no_duplicates:
        texts = None if corpus.kind == "documents" else 2
        order = DistinctBatches(order, rows.__getitems__, batch_size=batch_size, texts=texts)
    return order


def _entries(data: DataSection, corpus: Corpus, rows: RowSubset) -> list[range]:
    """Return the row numbers of each entry of ``data.train``, among the rows to train on."""
    counts = iter(corpus.report.file_rows)
    sizes = [sum(next(counts) for _ in find_files(entry)) for entry in data.train]
    ends = map(rows.count_before, accumulate(sizes, initial=0))
    return [range(first, end) for first, end in pairwise(ends)]
