"""Chains of augmentations, written ``"delete(0.1)|reorder(2)"``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from random import Random

from simcse_kit.data.augment.base import Augmentation
from simcse_kit.data.augment.function import CallFunction, check_allowed
from simcse_kit.data.augment.identity import Identity
from simcse_kit.data.augment.mlm import MLM, FillMasks
from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry
from simcse_kit.utils.spec import bound, parse_chain

__all__ = ["AUGMENTATIONS", "Chain", "preview", "random_of"]

AUGMENTATIONS = Registry(
    "augmentation",
    {
        "identity": "simcse_kit.data.augment.identity:Identity",
        "delete": "simcse_kit.data.augment.delete:Delete",
        "delete_span": "simcse_kit.data.augment.delete:DeleteSpan",
        "reorder": "simcse_kit.data.augment.reorder:Reorder",
        "substitute": "simcse_kit.data.augment.substitute:Substitute",
        "mlm": "simcse_kit.data.augment.mlm:MLM",
        "repeat": "simcse_kit.data.augment.repeat:Repeat",
        "crop": "simcse_kit.data.augment.crop:Crop",
        "call": "simcse_kit.data.augment.function:CallFunction",
        "back_translate": "simcse_kit.data.augment.function:CallFunction",
    },
)


class Chain:
    """Augmentations, one after the other. A text that one of them leaves blank passes it unchanged.

    Args:
        steps: the augmentations.
    """

    def __init__(self, steps: Sequence[Augmentation]):
        self.steps = tuple(steps)

    @classmethod
    def parse(
        cls, text: str, *, what: str = "data.augment", allow_call: Collection[str] = ()
    ) -> Chain:
        """Read ``"delete(0.1)|reorder(2)"``.

        Args:
            text: names in :data:`AUGMENTATIONS`, with arguments or without, joined by ``|``.
            what: the setting that the text belongs to, for messages.
            allow_call: modules whose functions ``call`` may import and run; none unless given.

        Raises:
            ConfigError: an unknown name, arguments that do not fit, a function of a module that is
                not allowed, or a missing file of synonyms.
            MissingExtraError: an optional package is missing.
        """
        steps = []
        for call in parse_chain(text, what=what):
            try:
                make = AUGMENTATIONS.resolve(call.name)
            except ConfigError as error:
                raise ConfigError(f"{what}: {error}") from None
            if make is CallFunction:
                make = _allowed_only(allow_call, what)
            steps.append(bound(call, make, what=what))
        return cls(steps)

    @property
    def changes(self) -> bool:
        """Whether there is anything but ``identity``."""
        return not all(isinstance(step, Identity) for step in self.steps)

    @property
    def needs_model(self) -> bool:
        """Whether :meth:`use` must be called first."""
        return any(step.needs_model for step in self.steps)

    def use(self, model: FillMasks) -> None:
        """Give a masked language model to the augmentations that need one."""
        for step in self.steps:
            if isinstance(step, MLM):
                step.model = model

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """The changed texts, in the same order, none blank.

        Args:
            texts: not blank.
            rngs: the random numbers of each text.
        """
        current = list(texts)
        for step in self.steps:
            changed = step(current, rngs)
            current = [
                new if new.strip() else old for old, new in zip(current, changed, strict=True)
            ]
        return current


def _allowed_only(allowed: Collection[str], what: str) -> Callable[[str], CallFunction]:
    def make(function: str) -> CallFunction:
        check_allowed(function, allowed, what=what)
        return CallFunction(function)

    return make


def random_of(seed: int, epoch: int, row: int, view: int) -> Random:
    """The random numbers of one view of one row in one epoch, the same in every process."""
    key = f"{seed}:{epoch}:{row}:{view}".encode()
    return Random(int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little"))


def preview(
    chain: str,
    texts: Sequence[str],
    *,
    seed: int = 42,
    epoch: int = 0,
    allow_call: Collection[str] = (),
) -> list[str]:
    """What a chain makes of texts; text n is taken for row n, as the positive view of a run.

    Args:
        chain: such as ``"delete(0.1)|reorder(2)"``.
        texts: not blank.
        seed: of the run.
        epoch: other epochs change texts in another way.
        allow_call: modules whose functions ``call`` may import and run.

    Raises:
        ConfigError: the chain is wrong, or needs a model (``mlm``).
        MissingExtraError: an optional package is missing.
        DataError: a file of synonyms or a function of the user's is wrong.
    """
    parsed = Chain.parse(chain, what="--augment", allow_call=allow_call)
    if parsed.needs_model:
        raise ConfigError(f"--augment is {chain!r}: mlm needs a model, so that it has no preview")
    return parsed(texts, [random_of(seed, epoch, row, 1) for row in range(len(texts))])
