"""Properties of info_nce, for any batch."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contrastive import info_nce_loss

settings.register_profile("law", max_examples=40, deadline=None)
law = settings(settings.get_profile("law"))


class Batch:
    """A random batch in float64, with ids in which texts repeat and a ragged mask."""

    def __init__(self, seed: int, rows: int, k: int, dim: int, tau: float, alpha: float):
        self.generator = torch.Generator().manual_seed(seed)
        self.vectors = [self.randn(rows, dim), self.randn(rows, dim), self.randn(rows, k, dim)]
        self.ids = [self.randint(6, rows), self.randint(6, rows), self.randint(6, rows, k)]
        self.mask = self.randint(2, rows, k).bool()
        self.rows, self.k, self.dim, self.tau, self.alpha = rows, k, dim, tau, alpha

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def randint(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def loss(
        self,
        vectors: list[Tensor] | None = None,
        ids: list[Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        ids = self.ids if ids is None else ids
        return info_nce_loss(
            *(self.vectors if vectors is None else vectors),
            temperature=self.tau,
            hard_negative_alpha=self.alpha,
            negative_mask=self.mask if mask is None else mask,
            anchor_ids=ids[0],
            positive_ids=ids[1],
            negative_ids=ids[2],
        )


batches = st.builds(
    Batch,
    seed=st.integers(0, 2**31),
    rows=st.integers(2, 6),
    k=st.integers(0, 3),
    dim=st.integers(2, 5),
    tau=st.sampled_from([0.05, 0.2, 1.0]),
    alpha=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@law
@given(batches)
def test_order_of_the_batch_does_not_matter(batch: Batch) -> None:
    order = torch.randperm(batch.rows, generator=batch.generator)
    shuffled = batch.loss(
        [x[order] for x in batch.vectors], [x[order] for x in batch.ids], batch.mask[order]
    )
    close(shuffled, batch.loss())


@law
@given(batches)
def test_length_of_a_vector_does_not_matter(batch: Batch) -> None:
    scaled = []
    for vectors in batch.vectors:
        exponent = 6 * torch.rand(vectors.shape[:-1], generator=batch.generator) - 3
        scaled.append(vectors * 10 ** exponent.double().unsqueeze(-1))
    close(batch.loss(scaled), batch.loss())


@law
@given(batches)
def test_a_common_rotation_does_not_matter(batch: Batch) -> None:
    rotation, _ = torch.linalg.qr(batch.randn(batch.dim, batch.dim))
    close(batch.loss([x @ rotation for x in batch.vectors]), batch.loss())


@law
@given(batches)
def test_absent_negatives_have_no_influence(batch: Batch) -> None:
    other = batch.randn(*batch.vectors[2].shape)
    dummies = torch.where(batch.mask.unsqueeze(-1), batch.vectors[2], other)
    close(batch.loss([*batch.vectors[:2], dummies]), batch.loss())


@law
@given(batches)
def test_masking_a_duplicate_equals_removing_it(batch: Batch) -> None:
    # All anchors are one text, so a hard negative with that text is a duplicate to each of them.
    anchors = torch.zeros_like(batch.ids[0])
    others = torch.arange(batch.rows) + 100
    by_id = batch.loss(ids=[anchors, others, batch.ids[2]])
    unique = [anchors + 1000, others, torch.full_like(batch.ids[2], 2000)]
    by_removal = batch.loss(ids=unique, mask=batch.mask & (batch.ids[2] != 0))
    close(by_id, by_removal)


@law
@given(batches)
def test_copies_of_one_text_are_not_negatives_of_each_other(batch: Batch) -> None:
    same = [torch.full_like(ids, 7) for ids in batch.ids]
    close(batch.loss(ids=same), torch.zeros((), dtype=torch.float64))


@law
@given(batches)
def test_one_more_negative_never_lowers_the_loss(batch: Batch) -> None:
    longer = [
        *batch.vectors[:2],
        torch.cat([batch.vectors[2], batch.randn(batch.rows, 1, batch.dim)], dim=1),
    ]
    ids = [*batch.ids[:2], torch.cat([batch.ids[2], batch.randint(6, batch.rows, 1)], dim=1)]
    mask = torch.cat([batch.mask, torch.ones(batch.rows, 1, dtype=torch.bool)], dim=1)
    assert batch.loss(longer, ids, mask) >= batch.loss() - 1e-12


@law
@given(batches)
def test_the_loss_is_not_negative(batch: Batch) -> None:
    assert batch.loss() >= 0
