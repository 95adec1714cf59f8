"""Chains of augmentations, written ``"delete(0.1)|reorder(2)"``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from random import Random

from simcse_kit.data.augment.base import Augmentation, Identity
from simcse_kit.data.augment.function import CallFunction, check_allowed
from simcse_kit.data.augment.mlm import MLM, FillMasks
from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry
from simcse_kit.utils.spec import instantiate, parse_chain

__all__ = ["AUGMENTATIONS", "Chain", "preview", "random_of", "register_augmentation"]

AUGMENTATIONS = Registry(
    "augmentation",
    {
        "identity": "simcse_kit.data.augment.base:Identity",
        "delete": "simcse_kit.data.augment.words:Delete",
        "delete_span": "simcse_kit.data.augment.words:DeleteSpan",
        "reorder": "simcse_kit.data.augment.words:Reorder",
        "substitute": "simcse_kit.data.augment.words:Substitute",
        "mlm": "simcse_kit.data.augment.mlm:MLM",
        "repeat": "simcse_kit.data.augment.words:Repeat",
        "crop": "simcse_kit.data.augment.words:Crop",
        "call": "simcse_kit.data.augment.function:CallFunction",
        "back_translate": "simcse_kit.data.augment.function:CallFunction",
    },
    group="simcse_kit.augmentations",
    base="simcse_kit.data.augment.base:Augmentation",
)


def register_augmentation(name: str, augmentation: str | type[Augmentation]) -> None:
    """Make an augmentation of your own available under a name.

    The name can then be used in ``data.augment`` and in ``--augment``, for as long as this Python
    process runs. A package registers an augmentation for every process by an entry point of the
    group ``simcse_kit.augmentations``. A plain function needs no registration: see
    :class:`~simcse_kit.data.augment.function.CallFunction`.

    Args:
        name: the new name, a Python identifier.
        augmentation: the class, or ``"package.module:Class"``, which is imported on first use.

    Raises:
        ConfigError: the name is taken or cannot be used as a name.

    Examples:
        >>> from simcse_kit.data.augment import WordAugmentation
        >>> class Reversed(WordAugmentation):
        ...     def change(self, words, rng):
        ...         return words[::-1]
        >>> register_augmentation("reversed_words", Reversed)
        >>> preview("reversed_words|crop(0.7)", ["one two three"])
        ['two one']
    """
    AUGMENTATIONS.register(name, augmentation)


class Chain:
    """Augmentations applied in sequence. A step that would leave a text blank is skipped for it.

    Args:
        steps: the augmentations.
    """

    def __init__(self, steps: Sequence[Augmentation]):
        self.steps = tuple(steps)

    @classmethod
    def parse(
        cls, text: str, *, what: str = "data.augment", allow_call: Collection[str] = ()
    ) -> Chain:
        """Parse a chain such as ``"delete(0.1)|reorder(2)"``.

        Args:
            text: names in :data:`AUGMENTATIONS`, with or without arguments, joined by ``|``.
            what: name of the setting, for messages.
            allow_call: modules whose functions ``call`` may import and run; none by default.

        Raises:
            ConfigError: an unknown name, wrong arguments, a function of a module that is not
                allowed, or a missing file of synonyms.
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
            steps.append(instantiate(call, make, what=what))
        return cls(steps)

    @property
    def changes(self) -> bool:
        """Whether any step is not ``identity``."""
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
        """Return the changed texts, in the same order, none of them blank.

        Args:
            texts: the texts, none of them blank.
            rngs: one random number generator per text.
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
    """Return the random numbers of one view of one row in one epoch, equal in every process."""
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
    """Apply a chain to texts as a run does to its positive views; text n is row n of the run.

    Args:
        chain: a chain such as ``"delete(0.1)|reorder(2)"``.
        texts: the texts, none of them blank.
        seed: seed of the run.
        epoch: epoch of the run; each epoch changes a text differently.
        allow_call: modules whose functions ``call`` may import and run.

    Raises:
        ConfigError: the chain is wrong, or needs a model (``mlm``).
        MissingExtraError: an optional package is missing.
        DataError: a file of synonyms is wrong, or a function returns something else than texts.

    Examples:
        >>> preview("delete(0.3)|reorder(1)", ["one two three four five six"], seed=1)
        ['three two four five six']
    """
    parsed = Chain.parse(chain, what="--augment", allow_call=allow_call)
    if parsed.needs_model:
        raise ConfigError(f"--augment is {chain!r}: mlm needs a model, so it has no preview")
    return parsed(texts, [random_of(seed, epoch, row, 1) for row in range(len(texts))])
