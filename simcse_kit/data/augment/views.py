"""The augmentation chains of the views of a training row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from simcse_kit.data.augment.chain import Chain, random_of
from simcse_kit.data.augment.mlm import FillMasks
from simcse_kit.data.readers import Example, Kind
from simcse_kit.errors import ConfigError

__all__ = ["AugmentedViews"]


class AugmentedViews:
    """The setting ``data.augment``: one chain for all views, or one chain per view.

    A single chain changes the positive if a row is one sentence, whose anchor stays unchanged, and
    every text if a row has several. In a list each view has its own chain; the last one also
    applies to all further hard negatives and next sentences.

    The change of a text is a function of seed, epoch, row and view. Held-out rows are always
    changed as in epoch 0, so that their losses can be compared between epochs.

    Args:
        setting: the value of ``data.augment``.
        seed: seed of the run.
        allow_call: modules whose functions ``call`` may import and run.

    Raises:
        ConfigError: a chain cannot be parsed, has an unknown name or wrong arguments, or calls a
            function of a module that is not allowed.
        MissingExtraError: an optional package is missing.
    """

    def __init__(
        self, setting: str | Sequence[str], seed: int, *, allow_call: Collection[str] = ()
    ):
        self.seed = seed
        self._each = not isinstance(setting, str)
        texts = [setting] if isinstance(setting, str) else setting
        self._given = [Chain.parse(text, allow_call=allow_call) for text in texts]
        self._chains: list[Chain] = []

    @property
    def changes(self) -> bool:
        """Whether any chain has a step that is not ``identity``."""
        return any(chain.changes for chain in self._given)

    @property
    def needs_model(self) -> bool:
        """Whether :meth:`use` must be called before the first batch."""
        return any(chain.needs_model for chain in self._given)

    def use(self, model: FillMasks) -> None:
        """Give a masked language model to the augmentations that need one."""
        for chain in self._given:
            chain.use(model)

    def lay_out(self, kind: Kind, views: tuple[int, ...]) -> tuple[int, ...]:
        """Assign the chains to the views of a method.

        Args:
            kind: kind of the data.
            views: layout of a row, from the method.

        Returns:
            The views for the collator; the single view of kind ``texts`` becomes two.

        Raises:
            ConfigError: the number of chains differs from the number of views.
        """
        single = len(views) == 1
        views = views * 2 if single else views
        chains = list(self._given)
        if not self._each:
            first = Chain([]) if kind == "texts" else chains[0]
            chains = [first] + [chains[0]] * (len(views) - 1)
        # Rows have different numbers of hard negatives and next sentences.
        elif 2 < len(chains) < len(views) or (kind == "documents" and len(chains) == 2):
            chains += [chains[-1]] * (len(views) - len(chains))
        if len(chains) != len(views):
            least = {"triplets": "3 (anchor, positive, hard negatives)"}.get(
                kind, "2 (anchor, positive)"
            )
            raise ConfigError(
                f"data.augment has {len(chains)} chains, and {kind} take {least}; give one per "
                "view, or a single one outside a list"
            )
        self._chains = chains
        return views

    def __call__(
        self, texts: Sequence[str], examples: Sequence[Example], present: Sequence[bool]
    ) -> list[str]:
        """Return the changed texts of a batch.

        Args:
            texts: B·V texts, row by row.
            examples: the B rows of these texts.
            present: whether the row has each of the texts; missing ones are not changed.
        """
        changed = list(texts)
        views = len(self._chains)
        for view, chain in enumerate(self._chains):
            places = [at for at in range(view, len(texts), views) if present[at]]
            if not (chain.changes and places):
                continue
            rows = [examples[at // views] for at in places]
            rngs = [random_of(self.seed, row.epoch, row.row, view) for row in rows]
            for at, text in zip(places, chain([texts[at] for at in places], rngs), strict=True):
                changed[at] = text
        return changed
