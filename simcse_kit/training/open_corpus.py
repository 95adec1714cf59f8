"""The training text from the settings of the table ``[data]``, in the cache or as a stream."""

from __future__ import annotations

from simcse_kit.config import DataSection, RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.streamed import StreamedCorpus
from simcse_kit.errors import ConfigError
from simcse_kit.training.data_defaults import read_options
from simcse_kit.training.row_order import check_weights, draws_by_file
from simcse_kit.utils.sizes import parse_bytes

__all__ = ["check_data_settings", "open_corpus"]


def check_data_settings(config: RunConfig) -> None:
    """Check the settings of the training text without reading it.

    Raises:
        ConfigError: There is no text, the number of weights is wrong, or a stream is combined with
            a setting that it does not allow.
    """
    data = config.data
    if not data.train:
        raise ConfigError("no training data: name files or folders, such as data/sentences.txt")
    check_weights(data)
    if data.stream is None:
        return
    stream_bytes(data)
    if draws_by_file(data):
        raise ConfigError(
            "data.stream shuffles the rows of all shards; leave data.weights and data.sampling out"
        )
    if config.evaluation.dev is None and config.evaluation.held_out:
        raise ConfigError(
            "data.stream cannot hold rows back, since that needs the texts of all rows; give "
            "graded pairs with --dev, or keep the last state with --set evaluation.held_out=0"
        )
    if config.trainer.get("dataloader_num_workers"):
        raise ConfigError(
            "data.stream reads its shards in one process; leave trainer.dataloader_num_workers out"
        )


def stream_bytes(data: DataSection) -> int:
    """Return the number of bytes of ``data.stream``.

    Raises:
        ConfigError: It is not a size.
    """
    assert data.stream is not None
    try:
        return parse_bytes(data.stream)
    except ValueError as error:
        raise ConfigError(f"data.stream is {data.stream!r}; it {error}") from None


def open_corpus(data: DataSection) -> Corpus:
    """Open the training text: a copy in the cache, or a stream if ``data.stream`` is set.

    Raises:
        ConfigError: The cache cannot be written, or is too small for the shards.
        DataError: The text cannot be read.
    """
    options = read_options(data)
    if data.stream is None:
        return Corpus.build(data.train, options, count_files=draws_by_file(data))
    return StreamedCorpus(data.train, options, stream_bytes(data))
