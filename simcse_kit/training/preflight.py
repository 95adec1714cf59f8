"""What is checked of a run before its text is read, which may take long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from simcse_kit.config import RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.encoder.folder.recipe import read_recipe
from simcse_kit.encoder.folder.resolve import resolve_model
from simcse_kit.encoder.pooling import check_pooling
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.training.arguments import check_reporting
from simcse_kit.training.batching.chunking import check_chunking
from simcse_kit.training.state.output_dir import check_output
from simcse_kit.training.trainer_fields import check_trainer_keys

__all__ = ["Preflight", "preflight"]


@dataclass(frozen=True)
class Preflight:
    """What is good of a run, its text aside.

    Attributes:
        place: the folder to write into, see
            :func:`~simcse_kit.training.state.output_dir.check_output`.
        dev: the dev set, if there is one.
        augment: what changes the texts, if anything does.
    """

    place: Path
    dev: DevSet | None
    augment: AugmentedViews | None


def preflight(
    config: RunConfig,
    method: type[Method],
    options: MethodConfig,
    *,
    resume: bool,
    overwrite: bool,
    allow_changed: bool,
    allow_call: Collection[str],
    processes: int,
) -> Preflight:
    """Check all that needs neither the training text nor any weights; see :func:`prepare`."""
    training = config.training
    if allow_changed and not resume:
        raise ConfigError(
            "--allow-changed is for runs that are resumed; add --resume or leave it out"
        )
    check_trainer_keys(config.trainer, schedule=training.schedule)
    check_reporting(training.report_to)
    check_chunking(method, options, training, processes)
    chains = config.data.augment
    augment = (
        None if chains is None else AugmentedViews(chains, training.seed, allow_call=allow_call)
    )
    if not config.data.train:
        raise ConfigError("no training data: name files or folders, such as data/sentences.txt")
    if config.evaluation.select == "dev" and config.evaluation.dev is None:
        raise ConfigError("evaluation.select is 'dev' and there is no dev set; give --dev")
    place = check_output(Path(training.output), resume=resume, overwrite=overwrite)
    model = config.model
    if model.pooling is not None:
        check_pooling(model.pooling)
    read_recipe(resolve_model(model.name, trust_remote_code=model.trust_remote_code))
    for name in method.other_models(options):
        read_recipe(resolve_model(name))
    dev = None if config.evaluation.dev is None else DevSet.load(config.evaluation.dev)
    return Preflight(place, dev, augment)
