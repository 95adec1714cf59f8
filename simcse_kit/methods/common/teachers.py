"""Options of methods whose rows have target vectors, computed by other models."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.config import DropoutConfig
from simcse_kit.methods.common.contrast import DataSpec

__all__ = ["TeacherConfig"]


class TeacherConfig(DropoutConfig):
    """Base class of the options of methods that learn from the vectors of teachers.

    Training computes the vectors of all rows before the first step, and puts those of a batch into
    :attr:`Batch.targets <simcse_kit.methods.common.batch.Batch>`.

    Examples:
        >>> TeacherConfig(teachers=["mini", "st:model"], teacher_weights=[3, 1]).shares()
        [0.75, 0.25]
    """

    needs_negatives = False

    teachers: list[str] = Field(
        default=[],
        description="models to learn from: anything that `simcse eval` opens, such as a folder, "
        "st:NAME or openai:NAME",
    )
    teacher_weights: list[float] = Field(
        default=[], description="weight of each teacher's cosines in the target; unset: equal"
    )
    bridge: Literal["principal", "dense"] = Field(
        default="principal",
        description="principal projects the targets on their first principal directions, as many "
        "as the student has dimensions, rotated towards its start; dense adds a trained layer to "
        "the student, which then has the dimensions of all teachers together",
    )

    @model_validator(mode="after")
    def _weights_fit(self) -> TeacherConfig:
        weights = self.teacher_weights
        if weights and len(weights) != len(self.teachers):
            raise ConfigError(
                f"method.teacher_weights has {len(weights)} numbers for {len(self.teachers)} "
                "teachers; give one for each, or none"
            )
        if any(not 0 < weight < math.inf for weight in weights):
            raise ConfigError(f"method.teacher_weights = {weights}: every weight must be above 0")
        return self

    def shares(self) -> list[float]:
        """Return the weights of the teachers, scaled to a sum of 1."""
        weights = self.teacher_weights or [1.0] * len(self.teachers)
        return [weight / sum(weights) for weight in weights]

    def check_data(self, data: DataSpec) -> None:
        """Refuse to train without a teacher."""
        if not self.teachers:
            raise ConfigError(
                "no teacher is given; name the model to learn from with --teacher MODEL, such as a "
                "folder, st:NAME or openai:NAME"
            )
