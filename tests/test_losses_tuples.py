"""The tuple losses equal their formulas, count 90 triplets, and collapse just where theory says."""

import math

import pytest
import torch
from hypothesis import given, settings
from pytorch_metric_learning.distances import DotProductSimilarity, LpDistance
from pytorch_metric_learning.losses import NPairsLoss, NTXentLoss

from batches import batch, batches, gradient
from nearkin.losses import NPair, TupleRatio, TupleTriplet
from nearkin.losses.tuples import tuples


def pairs_by_hand(y):
    """Indices of (y_i, y_i+): the images of each class two by two, class by class."""
    pairs = []
    for c in sorted(set(y.tolist())):
        of_class = [i for i in range(len(y)) if y[i] == c]
        pairs += list(zip(of_class[0::2], of_class[1::2], strict=False))
    return pairs if len({int(y[i]) for i, _ in pairs}) > 1 else []


def n_pair(x, y):
    terms = []
    for i, i_plus in pairs_by_hand(y):
        others = [j_plus for j, j_plus in pairs_by_hand(y) if y[j] != y[i]]
        total = sum(torch.exp(x[i] @ x[j] - x[i] @ x[i_plus]) for j in others)
        terms.append(torch.log(1 + torch.as_tensor(total)))
    return sum(terms) / max(len(terms), 1)


def n_pair_printed(x, y):
    pairs, total = pairs_by_hand(y), 0.0
    for i, i_plus in pairs:
        others = [j_plus for j, j_plus in pairs if y[j] != y[i]]
        exponent = sum(x[i] @ x[j] - x[i] @ x[i_plus] for j in others)
        total = total + torch.exp(torch.as_tensor(exponent))
    return torch.log(torch.as_tensor(total)) / len(pairs) if pairs else 0.0


def squared_norms(x, y):
    pairs = pairs_by_hand(y)
    return sum(x[i] @ x[i] + x[p] @ x[p] for i, p in pairs) / max(2 * len(pairs), 1)


def triplet(x, y):
    terms = [
        torch.sigmoid((x[i] - x[i_plus]).norm() - (x[i] - x[j_plus]).norm()) ** 2
        for i, i_plus in pairs_by_hand(y)
        for j, j_plus in pairs_by_hand(y)
        if y[i] != y[j]
    ]
    return sum(terms) / max(len(terms), 1)


def ratio(x, y, sign=-1):
    """Sign -1: the share of exp(-d) that the partner has; sign 1: eq. 8 as printed."""
    terms = []
    for i, i_plus in pairs_by_hand(y):
        own = torch.exp(sign * (x[i] - x[i_plus]).norm())
        others = [j_plus for j, j_plus in pairs_by_hand(y) if y[j] != y[i]]
        share = own / (own + sum(torch.exp(sign * (x[i] - x[j]).norm()) for j in others))
        terms.append(-torch.log(share) if sign < 0 else share)
    return sum(terms) / max(len(terms), 1)


FORMULAS = [
    (NPair(), n_pair),
    (NPair(form="printed"), n_pair_printed),
    (NPair(l2=0.3), lambda x, y: n_pair(x, y) + 0.3 * squared_norms(x, y)),
    (NPair("printed", 0.3), lambda x, y: n_pair_printed(x, y) + 0.3 * squared_norms(x, y)),
    (TupleTriplet(), triplet),
    (TupleRatio(), ratio),
    (TupleRatio(form="printed"), lambda x, y: ratio(x, y, 1)),
]


@pytest.mark.parametrize(("loss", "formula"), FORMULAS)
@settings(max_examples=30, deadline=None)
@given(case=batches())
def test_equals_the_formula(loss, formula, case):
    x, y = case
    slow = torch.as_tensor(formula(x, y)).double()
    torch.testing.assert_close(loss(x, y), slow, atol=1e-6, rtol=1e-6)
    assert gradient(loss, x, y).isfinite().all()


@pytest.mark.parametrize(("loss", "formula"), FORMULAS)
def test_gradients_equal_those_of_the_formula(loss, formula):
    x, y = batch([4, 3, 5, 1])
    torch.testing.assert_close(gradient(loss, x, y), gradient(formula, x, y))
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y))


def test_ten_classes_of_two_images_are_90_triplets():
    x, y = batch([2] * 10)
    anchor, partner, other = tuples(x, y)
    assert len(anchor) == len(partner) == 10
    assert other.sum() == 90
    assert TupleTriplet()(torch.zeros_like(x), y) == 90 / 4 / 90


def test_a_batch_is_read_two_by_two():
    y = torch.tensor([5, 9, 5, 5, 9, 5, 5, 7])
    anchor, partner, other = tuples(torch.arange(8.0)[:, None], y)
    assert anchor.squeeze(1).tolist() == [0, 3, 1]
    assert partner.squeeze(1).tolist() == [2, 5, 4]
    assert other.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_a_label_too_few_is_refused():
    with pytest.raises(ValueError, match="labels must be 4 integers"):
        tuples(torch.ones(4, 2), torch.tensor([0, 0, 1]))


def test_tuple_ratio_equals_its_twin_in_pytorch_metric_learning():
    """NT-Xent by minus the distance: the partner among the partners of all others."""
    x, y = batch([2] * 5)
    anchor, partner, other = tuples(x, y)
    i = torch.arange(len(anchor))
    a, n = other.bool().nonzero(as_tuple=True)
    theirs = NTXentLoss(temperature=1, distance=LpDistance(normalize_embeddings=False))
    expected = theirs(anchor, i, (i, i, a, n), partner, i)
    torch.testing.assert_close(TupleRatio()(x, y), expected, atol=1e-6, rtol=1e-6)


def test_n_pair_equals_its_twin_in_pytorch_metric_learning():
    x, y = batch([2] * 6)
    theirs = NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    torch.testing.assert_close(NPair()(x, y), theirs(x, y))
    torch.testing.assert_close(gradient(NPair(), x, y), gradient(theirs, x, y))


@pytest.mark.parametrize(("l2", "sign"), [(0.0, -1), (0.5, -1), (0.9, -1), (1.1, 1), (2.0, 1)])
def test_zero_is_a_saddle_of_n_pair_below_l2_of_1_and_a_minimum_above(l2, sign):
    """loss(eps V) - loss(0) = (l2 - 1) eps^2 mean |v|^2 + O(eps^4), for y = y+ = eps v centred."""
    v = torch.randn(6, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    v = v - v.mean(0)
    x, y = v.repeat_interleave(2, 0), torch.arange(6).repeat_interleave(2)
    loss, eps = NPair(l2=l2), 1e-3
    change = loss(eps * x, y) - loss(0 * x, y)
    predicted = (l2 - 1) * eps**2 * v.square().sum(1).mean()
    torch.testing.assert_close(change, predicted, rtol=1e-3, atol=0)
    assert change.sign() == sign
    assert gradient(loss, 0 * x, y).abs().max() < 1e-12


def test_printed_n_pair_has_no_lower_bound():
    x, y = torch.eye(4, dtype=torch.double)[[0, 0, 1, 1, 2, 2, 3, 3]], torch.arange(8) // 2
    values = [NPair(form="printed")(scale * x, y) for scale in (1, 10, 100)]
    torch.testing.assert_close(values[2], torch.tensor((math.log(4) - 3e4) / 4).double())
    assert values[0] > values[1] > values[2]


def test_eq_8_as_printed_pushes_the_farthest_negative_and_right_the_nearest():
    """Gradients of one anchor's term by its distances .5, 1, 4 to negatives, at d+ = 1.

    The other anchors stand so far off, at right angles, that they pull along the other axis.
    """
    at, far = [1.0, 0.5, 1.0, 4.0], 1e6
    x = [[0.0, 0.0], [1.0, 0.0]] + [row for p in at[1:] for row in ([p, far], [p, 0.0])]
    x, y = torch.tensor(x).double(), torch.arange(8) // 2
    negatives = [3, 5, 7]
    printed = -4 * gradient(TupleRatio(form="printed"), x, y)[negatives, 0]
    right = -4 * gradient(TupleRatio(), x, y)[negatives, 0]
    torch.testing.assert_close(
        printed, torch.tensor([0.0012, 0.0019, 0.0390]).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(right, torch.tensor([0.45, 0.27, 0.013]).double(), atol=5e-3, rtol=0)


def test_a_collapsed_network_scores_by_chance():
    x, y = torch.zeros(20, 2), torch.arange(20) % 10
    assert TupleRatio()(x, y) == pytest.approx(math.log(10))
    assert TupleRatio(form="printed")(x, y) == pytest.approx(0.1)
    assert NPair()(x, y) == pytest.approx(math.log(10))


@pytest.mark.parametrize("loss", [NPair(), TupleTriplet(), TupleRatio()])
@settings(max_examples=30, deadline=None)
@given(case=batches())
def test_active_counts_the_partners_of_others_that_are_as_near_as_ones_own(loss, case):
    x, y = 27720 * case[0].round(), case[1]  # means of up to 12 are whole: exact ties
    pairs, near = pairs_by_hand(y), []
    for i, i_plus in pairs:
        for j in (j_plus for j, j_plus in pairs if y[j] != y[i]):
            if isinstance(loss, NPair):
                near.append(bool(x[i] @ x[j] >= x[i] @ x[i_plus]))
            else:
                near.append(bool((x[i] - x[j]).square().sum() <= (x[i] - x[i_plus]).square().sum()))
    assert loss.active(x, y) == pytest.approx(sum(near) / max(len(near), 1))


@pytest.mark.parametrize("loss", [NPair(), TupleTriplet(), TupleRatio()])
@pytest.mark.parametrize("size", [1, 3, 17, 64])
def test_all_are_active_at_collapse(loss, size):
    for x in (torch.randn(1, size, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 3)):
        assert loss.active(x.repeat(20, 1), torch.arange(20) % 10) == 1


def test_large_embeddings_do_not_overflow():
    x, y = batch([2, 2, 2])
    for loss, _ in FORMULAS:
        assert loss(100 * x.float(), y).isfinite()
        assert gradient(loss, 100 * x.float(), y).isfinite().all()


@pytest.mark.parametrize("l2", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_refused(l2):
    with pytest.raises(ValueError, match="l2 must be a number of 0 or more"):
        NPair(l2=l2)


def test_an_unknown_form_is_refused():
    for loss in (NPair, TupleRatio):
        with pytest.raises(ValueError, match="got 'left'"):
            loss(form="left")
