"""The shared arithmetic, against torch.cdist in float64, an SVD by hand, and its edge cases."""

import math

import torch
from hypothesis import given, settings

from batches import batches, gradient
from nearkin.tensors import (
    distances,
    effective_rank,
    inner,
    masked_mean,
    pair_masks,
    squared_distances,
    unit,
)


@settings(max_examples=50, deadline=None)
@given(batches())
def test_distances_are_euclidean(case):
    x, _ = case
    torch.testing.assert_close(distances(x), torch.cdist(x, x), atol=1e-7, rtol=0)
    torch.testing.assert_close(distances(x, x[:2]), torch.cdist(x, x[:2]), atol=1e-7, rtol=0)
    assert (squared_distances(x).diagonal() == 0).all()
    assert gradient(lambda x: distances(x).sum(), x).isfinite().all()


def test_distances_pass_gradcheck():
    x, y = torch.randn(2, 5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    x, y = x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(distances, (x, y))
    assert torch.autograd.gradcheck(squared_distances, (x,))


def test_far_from_the_origin_little_is_lost():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distances(x + 1000), distances(x), atol=2e-3, rtol=0)
    near = gradient(lambda x: distances(x).sum(), x)
    far = gradient(lambda x: distances(x).sum(), x + 1000)
    torch.testing.assert_close(far, near, atol=2e-3, rtol=0)


def test_half_precision_and_autocast_are_lifted_to_float32():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert inner(x, x).dtype == torch.float32
        torch.testing.assert_close(distances(x), distances(x.double()).float())
    assert distances(x.bfloat16()).dtype == torch.float32


def test_pair_masks_leave_out_the_row_itself_but_not_a_reference():
    labels = torch.tensor([0, 1, 0])
    positive, negative = pair_masks(labels)
    assert positive.nonzero().tolist() == [[0, 2], [2, 0]]
    assert negative.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    positive, negative = pair_masks(labels, torch.tensor([0, 1]))
    assert positive.tolist() == [[True, False], [False, True], [True, False]]
    assert torch.equal(negative, ~positive)


def test_masked_mean_of_nothing_is_0_with_zero_gradient():
    x = torch.tensor([torch.inf, torch.nan, 1.0], requires_grad=True)
    mean = masked_mean(x, torch.tensor([False, False, False]))
    mean.backward()
    assert mean == 0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_unit_keeps_a_zero_row():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(50, 1, generator=generator) @ torch.ones(1, 4)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])
    assert math.isclose(effective_rank(line), 1, rel_tol=1e-5)
    assert math.isclose(effective_rank(cross + 7), 4, rel_tol=1e-5)
    assert effective_rank(torch.ones(5, 3)) == 0
    shares = torch.tensor([3.0, 1.0]) / 4
    two = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    entropy = -(shares * shares.log()).sum()
    assert math.isclose(effective_rank(two), entropy.exp(), rel_tol=1e-6)
