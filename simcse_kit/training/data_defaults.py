"""Settings that follow from the training data: the method, and the scale of scores."""

from __future__ import annotations

import logging

from simcse_kit.config import DataSection, RunConfig
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.find import find_files
from simcse_kit.data.graded import assumed_scale
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Kind, file_kind
from simcse_kit.data.remote import is_remote
from simcse_kit.data.streamed import StreamedCorpus
from simcse_kit.errors import DataError
from simcse_kit.methods.common.config import MethodConfig

__all__ = ["first_kind", "read_options", "with_method", "with_scale"]

logger = logging.getLogger(__name__)

_GRADED = "graded"


def read_options(data: DataSection) -> ReadOptions:
    """Return the options of reading the training text."""
    return ReadOptions(
        columns=data.columns,
        on_bad_row=data.on_bad_row,
        label=data.label,
        documents=data.documents,
    )


def first_kind(data: DataSection) -> Kind | None:
    """Return the kind of the rows of the first file; None if it cannot be read.

    Errors are raised later, after the settings have been checked. Only those of addresses are
    raised at once, since a second attempt would wait for the network again.

    Raises:
        ConfigError, DataError: the data is not on this machine and cannot be copied.
    """
    if data.stream is not None:
        return StreamedCorpus.first_kind(data.train, read_options(data))
    try:
        return file_kind(find_files(data.train)[0], read_options(data))
    except DataError:
        if any(map(is_remote, data.train)):
            raise
        return None


def with_method(config: RunConfig) -> RunConfig:
    """Choose the method by the data, unless a flag, file or preset names one.

    Pairs with scores get the method ``graded``, all other data the default of the configuration.
    """
    if "name" in config.method.model_fields_set or not config.data.train:
        return config
    if first_kind(config.data) != "labelled":
        return config
    logger.info(
        "the training data are pairs with scores, so method %r is used; name another with "
        "--method, or use --preset %s, which also sets batch size and learning rate",
        _GRADED,
        _GRADED,
    )
    section = config.method.model_copy(update={"name": _GRADED})
    return config.model_copy(update={"method": section})


def with_scale(config: RunConfig, corpus: Corpus, options: MethodConfig) -> RunConfig:
    """Fill in the scale of the scores, and check that it holds all scores.

    Raises:
        DataError: a score is outside the given scale.
    """
    if corpus.kind != "labelled" or not options.reads_scores:
        return config
    scores = corpus.labels()
    given = config.data.scale
    if given is not None:
        outside = [score for score in scores if not given[0] <= score <= given[1]]
        if outside:
            raise DataError(
                f"score {outside[0]:g} is outside data.scale = {given}; the scores of the data are "
                f"{scores[0]:g} to {scores[-1]:g}: use --scale {scores[0]:g},{scores[-1]:g} or "
                "wider, or correct the scores"
            )
        return config
    scale = assumed_scale(scores)
    logger.info(
        "the scores are %g to %g, so their scale is taken to be %g to %g, the highest for the most "
        "similar pairs; if it is another, give --scale LOWEST,HIGHEST",
        scores[0],
        scores[-1],
        *scale,
    )
    if scores == [0, 1, 2]:
        logger.warning(
            "the only scores are 0, 1 and 2, which looks like classes of natural language "
            "inference; if they are classes, make triplets of them with simcse data nli FILE "
            "--premise sentence1 --hypothesis sentence2 --label score "
            "--labels entailment=0,neutral=1,contradiction=2 --output OTHER.csv"
        )
    section = config.data.model_copy(update={"scale": list(scale)})
    return config.model_copy(update={"data": section})
