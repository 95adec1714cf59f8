"""The options of a training method, and what follows from them before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.utils.settings import validated

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Dropout", "DropoutConfig", "MethodConfig", "inert", "parse_config"]

C = TypeVar("C", bound="MethodConfig")

Dropout = Annotated[
    float | None,
    Field(ge=0, lt=1, description="set every dropout of the encoder; unset keeps its own"),
]


class MethodConfig(BaseModel):
    """Base class of the options of every method. Unknown keys, NaN and infinity are refused.

    An option named ``queue_size`` is the number of vectors that a queue keeps; options named
    ``guide`` and ``generator`` name further models to open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    needs_negatives: ClassVar[bool] = True
    """Whether an anchor without negatives has nothing to learn from."""
    reads_scores: ClassVar[bool] = False
    """Whether labels are scores of similarity, which ``data.scale`` maps to 0 to 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1.0, so a slip would become a temperature.
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            if bool not in (annotation, *get_args(annotation)):
                raise ValueError("must not be true or false")
        return value

    def contrast(self, data: DataSpec, batch_size: int) -> Contrast:
        """Return what an anchor is compared with: by default the other rows of the batch.

        The negatives are the positives of the other rows and the hard negatives of all rows.

        Args:
            data: the form of the training data.
            batch_size: rows in one forward pass.
        """
        queue: int = getattr(self, "queue_size", 0)
        if not self.needs_negatives:
            return Contrast(0, queue, needed=False)
        return Contrast(batch_size - 1 + batch_size * data.hard_negatives, queue)

    def fewest_rows(self, data: DataSpec) -> int:
        """Return the fewest rows of a batch; by default two, or one pair with a label."""
        return 1 if data.kind == "labelled" else 2

    def check_data(self, data: DataSpec) -> None:
        """Refuse data that the method reads, but not with these options.

        Raises:
            ConfigError: the options do not fit the data.
        """

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels that the method cannot learn from with these options.

        Args:
            labels: (n,) float, the labels of some or all rows.

        Raises:
            DataError: there is such a label.
        """

    def unused(self, data: DataSpec) -> list[str]:
        """Return a sentence for each option that was set and has no effect."""
        return []

    def chunking_obstacle(self) -> str | None:
        """Return why batches cannot be embedded in chunks; None if they can.

        Chunks need a loss that is a function of the embeddings alone. The answer completes a
        sentence after "because".
        """
        return None

    def collapse_remedy(self) -> str | None:
        """Return what to try with this method if the embeddings collapse, as an imperative."""
        return None

    def other_models(self) -> list[str]:
        """Return the names of the further models that the method opens."""
        names = (getattr(self, key, None) for key in ("guide", "generator"))
        return [name for name in names if name is not None]


class DropoutConfig(MethodConfig):
    """Base class of the options of methods whose views differ by dropout."""

    dropout: Dropout = None


def inert(options: MethodConfig, *keys: str, because: str) -> list[str]:
    """Return a sentence for each of these options that is not at its default.

    Args:
        options: the options of the method.
        keys: names of options that have no effect.
        because: the reason.
    """
    fields = type(options).model_fields
    return [
        f"method.{key} = {getattr(options, key)!r} has no effect, because {because}"
        for key in keys
        if getattr(options, key) != fields[key].get_default(call_default_factory=True)
    ]


def parse_config(config_class: type[C], options: Mapping[str, Any]) -> C:
    """Make the options of a method, with defaults for those that are not given.

    Args:
        config_class: the ``Config`` of the method.
        options: option -> value.

    Raises:
        ConfigError: one line that names every unknown key and every value that is not allowed.
    """
    parsed: C = validated(config_class, options, prefix="method")
    return parsed
