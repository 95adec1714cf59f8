"""Plan of a training run: everything that is known before weights are loaded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import transformers

from simcse_kit.config import RunConfig
from simcse_kit.data.augment.views import AugmentedViews
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.readers import Example
from simcse_kit.evaluation.dev_set import DevSet
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.config import MethodConfig
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.training.batching.order import EpochOrder
from simcse_kit.training.batching.subset import RowSubset, rows_digest
from simcse_kit.training.column_prompts import ColumnPrompts, column_prompts
from simcse_kit.training.selection import BOTH, LOSS

__all__ = ["RunPlan", "StartOptions"]


@dataclass(frozen=True)
class StartOptions:
    """How a run starts. These options are not part of its configuration.

    Attributes:
        resume: continue the run in the output folder.
        overwrite: replace an earlier run in the output folder once the new one is complete.
        allow_changed: resume even if the configuration or the training text has changed.
        allow_call: modules and packages whose functions augmentations may call.
    """

    resume: bool = False
    overwrite: bool = False
    allow_changed: bool = False
    allow_call: Collection[str] = ()


@dataclass(frozen=True)
class RunPlan:
    """A run whose configuration, training text, dev set and output folder are good.

    Attributes:
        config: the configuration, with the defaults of the method filled in.
        method: the class of the method.
        options: the options of the method.
        corpus: the training text.
        dev: the dev set; None without one.
        rows: the rows to train on.
        order: the order in which training reads them.
        held_out: the rows kept back for the dev loss.
        score_name: the metric that chooses the checkpoint; None if nothing is evaluated.
        folder: the folder to write into until the run is complete.
        resume: whether the run continues the one in ``folder``.
        arguments: the arguments of the trainer.
        views: index of the text of a row that each view holds.
        augment: the augmentation of the views; None without one.
    """

    config: RunConfig
    method: type[Method]
    options: MethodConfig
    corpus: Corpus
    dev: DevSet | None
    rows: RowSubset
    order: EpochOrder
    held_out: list[Example]
    score_name: str | None
    folder: Path
    resume: bool
    arguments: transformers.TrainingArguments
    views: tuple[int, ...]
    augment: AugmentedViews | None

    @property
    def output(self) -> Path:
        """The folder of the finished run."""
        return Path(self.config.training.output)

    @property
    def held_out_digest(self) -> str:
        """SHA-256 of the numbers of the held-out rows."""
        return rows_digest([row.row for row in self.held_out])

    @property
    def start_counts(self) -> bool:
        """Whether the score before the first step can be compared with those of checkpoints."""
        if self.score_name not in (LOSS, BOTH):
            return self.score_name is not None
        return not (self.method.collapse_is_lowest or self.method.loss_changes_with_state)

    @property
    def data(self) -> DataSpec:
        """The form of the training data."""
        return DataSpec(self.corpus.kind, self.corpus.negatives)

    @property
    def prompts(self) -> ColumnPrompts:
        """The prompts of the texts of a row."""
        return column_prompts(self.config.data, self.data)

    @property
    def label_scale(self) -> list[float] | None:
        """The scale that is mapped to 0 to 1, if the method reads labels as scores."""
        scores = self.corpus.kind == "labelled" and self.options.reads_scores
        return self.config.data.scale if scores else None

    @property
    def contrast(self) -> Contrast:
        """What the method compares an anchor with in one batch."""
        return self.options.contrast(self.data, self.config.training.batch_size)
