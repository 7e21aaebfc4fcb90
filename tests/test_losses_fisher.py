"""FisherNCA equals its formula, eigenvalue by eigenvalue, whatever the scale of the embeddings."""

import math

import pytest
import torch
from hypothesis import given, settings
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import NTXentLoss

from batches import batch, batches, gradient
from nearkin.losses import FisherNCA


def near(x, y, sharpness):
    """Mean over kin pairs of log(1 + sum_n exp(t (d_ij^2 - d_in^2) / v))."""
    d = torch.cdist(x, x) ** 2
    kin = [(i, j) for i in range(len(y)) for j in range(len(y)) if i != j and y[i] == y[j]]
    v = sum(d[i, j] for i, j in kin) / max(len(kin), 1)
    terms = []
    for i, j in kin:
        others = [n for n in range(len(y)) if y[n] != y[i]]
        if others:
            total = sum(torch.exp(sharpness * (d[i, j] - d[i, n]) / v) for n in others)
            terms.append(torch.log(1 + torch.as_tensor(total)))
    return sum(terms) / max(len(terms), 1)


def uneven(x, y):
    """Mean over items of log R - H, from the eigenvalues of their class's covariance."""
    total = 0.0
    for c in y.unique():
        own = x[y == c]
        centred = own - own.mean(0)
        eigenvalues = torch.linalg.eigvalsh(centred.T @ centred)
        if len(own) < 2 or eigenvalues.sum() == 0:
            continue
        shares = eigenvalues / eigenvalues.sum()
        rank = min(x.shape[1], len(own) - 1)
        total = total + len(own) * (math.log(rank) + torch.log((shares**2).sum()))
    return total / len(y)


def compact(x, y):
    """log of the mean squared distance of kin over that of two classes, times the mean of log R."""
    pairs = [(i, j) for i in range(len(y)) for j in range(len(y)) if i != j]
    kin = [((x[i] - x[j]) ** 2).sum() for i, j in pairs if y[i] == y[j]]
    others = [((x[i] - x[j]) ** 2).sum() for i, j in pairs if y[i] != y[j]]
    if not kin or not others:
        return 0.0
    sizes = [int((y == c).sum()) for c in y]
    room = [math.log(max(1, min(x.shape[1], size - 1))) for size in sizes]
    return sum(room) / len(y) * (torch.stack(kin).mean() / torch.stack(others).mean()).log()


def formula(x, y, sharpness=0.5, roundness=0.1, compactness=0.0):
    total = near(x, y, sharpness) + roundness * uneven(x, y) + compactness * compact(x, y)
    return torch.as_tensor(total).double()


@settings(max_examples=40, deadline=None)
@given(batches())
def test_equals_the_formula(case):
    x, y = case
    if len(x.unique(dim=0)) < len(x):  # classes at one point: the formula divides 0 by 0
        assert FisherNCA()(x, y).isfinite()
    else:
        torch.testing.assert_close(FisherNCA()(x, y), formula(x, y), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            FisherNCA(2.0, 0.7, 0.4)(x, y), formula(x, y, 2.0, 0.7, 0.4), atol=1e-6, rtol=1e-6
        )
    for compactness in (0, 1):
        assert gradient(FisherNCA(compactness=compactness), x, y).isfinite().all()


def test_without_roundness_it_equals_nt_xent_by_squared_distances_over_their_mean():
    x, y = batch([3, 4, 2])
    square = torch.cdist(x, x) ** 2
    kin = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
    distance = LpDistance(normalize_embeddings=False, power=2)
    theirs = NTXentLoss(temperature=float(square[kin].mean() / 0.5), distance=distance)
    torch.testing.assert_close(FisherNCA(0.5, 0.0)(x, y), theirs(x, y), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss", [FisherNCA(), FisherNCA(compactness=0.3)])
def test_the_scale_of_the_embeddings_does_not_matter_in_float32(loss):
    x, y = batch([5, 4, 6])
    x = x.float()
    for scale in (1e-6, 1e-4, 1e4, 1e6):
        torch.testing.assert_close(loss(scale * x, y), loss(x, y), rtol=1e-4, atol=0)


@pytest.mark.parametrize("loss", [FisherNCA(), FisherNCA(compactness=0.3)])
@pytest.mark.parametrize("power", [41, 60, 100, 126])
def test_numbers_whose_squares_float32_cannot_hold_are_as_good_as_others(loss, power):
    x, y = batch([5, 4, 6])
    x = (x / x.abs().max()).float()
    far = (x * 2.0**power).requires_grad_()
    found, wanted = loss(far, y), loss(x, y)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    found.backward()
    assert far.grad.isfinite().all()


def test_far_from_zero_it_is_computed_in_float32_under_autocast():
    x, y = batch([3, 4, 2])
    x = x.float() + 100
    with torch.autocast("cpu", torch.bfloat16):
        found = FisherNCA()(x, y)
    torch.testing.assert_close(found, FisherNCA()(x, y), rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [(), (0.5, 0.1, 0.3)])
def test_gradients(options):
    x, y = batch([4, 3, 5, 1])
    loss, slow = FisherNCA(*options), lambda x, y: formula(x, y, *options)
    torch.testing.assert_close(gradient(loss, x, y), gradient(slow, x, y))
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y))


@pytest.mark.parametrize("loss", [FisherNCA(), FisherNCA(compactness=0.3)])
def test_neither_scale_nor_place_nor_turn_matters(loss):
    x, y = batch([4, 3, 5])
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double)).Q
    torch.testing.assert_close(loss(1e3 * x @ turn + 7, y), loss(x, y))
    inward = (gradient(loss, x, y) * x).sum()
    assert inward.abs() < 1e-12, "the gradient would grow or shrink the embeddings"


def test_round_classes_are_even_and_lines_are_not():
    cross = torch.cat([torch.eye(2), -torch.eye(2)]).double()
    line = torch.tensor([[-2.0, 0], [-1, 0], [1, 0], [2, 0]]).double()
    y = torch.zeros(4, dtype=torch.long)
    assert FisherNCA(roundness=1.0)(cross, y) == pytest.approx(0)
    assert FisherNCA(roundness=1.0)(line, y) == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", [FisherNCA(), FisherNCA(compactness=0.3)])
def test_collapse_does_not_help(loss):
    """A batch at one point scores by chance, and is pulled nowhere."""
    y = torch.arange(20) % 10
    assert loss(torch.zeros(20, 2), y) == pytest.approx(math.log(19))
    assert (gradient(loss, torch.zeros(20, 2), y) == 0).all()


@settings(max_examples=30, deadline=None)
@given(batches(largest=9))
def test_active_counts_the_triplets_in_the_wrong_order(case):
    x, y = 27720 * case[0].round(), case[1]  # means of up to 12 are whole: exact ties
    d = (x[:, None] - x).square().sum(2)
    wrong = [
        bool(d[i, n] <= d[i, j])
        for i in range(len(y))
        for j in range(len(y))
        for n in range(len(y))
        if i != j and y[i] == y[j] != y[n]
    ]
    assert FisherNCA().active(x, y) == pytest.approx(sum(wrong) / max(len(wrong), 1))


def test_all_are_active_at_collapse():
    assert FisherNCA().active(torch.full((20, 3), 0.3), torch.arange(20) % 10) == 1


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="sharpness must be a number above 0, got 0"):
        FisherNCA(sharpness=0)
    with pytest.raises(ValueError, match="roundness must be a number of 0 or more, got -1"):
        FisherNCA(roundness=-1)
    with pytest.raises(ValueError, match="sharpness must be a number above 0, got nan"):
        FisherNCA(sharpness=math.nan)
    with pytest.raises(ValueError, match="compactness must be a number of 0 or more, got -1"):
        FisherNCA(compactness=-1)
