"""The hierarchical triplet loss: golden values, trees by scipy, triplets in loops, resumed runs."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from batches import batch, batches, gradient
from goldens import cases
from nearkin.losses import HierarchicalTriplet, Memory, Triplet
from nearkin.losses.hierarchy import LINKAGES, class_means, levels_of, nearest_classes, spreads
from nearkin.losses.triplets import share_within
from nearkin.tensors import squared_distances, unit


def surveyed(x, y, classes, **options) -> HierarchicalTriplet:
    loss = HierarchicalTriplet(classes, x.shape[1], tree="epoch", **options).double()
    loss.survey(x.detach(), y)
    return loss


def merge_heights(loss: Any) -> torch.Tensor:
    """d_H (C, C) as the margins tell it."""
    classes = torch.arange(len(loss.sizes))
    found = loss.margins(classes, classes) - loss.beta + loss.within[:, None]
    return found.fill_diagonal_(0)


@pytest.mark.parametrize("case", cases("htl"))
def test_golden_values(case):
    inputs, options, expected = case["inputs"], case["options"], case["expected"]
    x = torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(inputs["y"])
    classes = int(y.max()) + 1
    given = {"levels": inputs["levels"], "beta": inputs["beta"], **options}
    loss = surveyed(x, y, classes, **given)
    means, sizes = class_means(x.detach(), y, classes)
    distance = np.array(expected["class_distance"])
    ours = 2 - 2 * (means @ means.T).numpy()
    off = ~np.eye(classes, dtype=bool)
    np.testing.assert_allclose(ours[off], distance[off], rtol=0, atol=1e-9)
    np.testing.assert_allclose(spreads(means, sizes), expected["within"], rtol=0, atol=1e-9)
    assert loss.thresholds[0].item() == pytest.approx(expected["d0"], abs=1e-9)
    np.testing.assert_allclose(merge_heights(loss), expected["merge"], rtol=0, atol=1e-9)
    found = loss.margins(torch.arange(classes), torch.arange(classes)).numpy()
    np.testing.assert_allclose(found[off], np.array(expected["margins"])[off], rtol=0, atol=1e-9)
    value = loss(x, y)
    assert value.item() == pytest.approx(expected["loss"], abs=1e-9)
    (found,) = torch.autograd.grad(value, x)
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    tangent = theirs - (theirs * x.detach()).sum(1, keepdim=True) * x.detach()
    torch.testing.assert_close(found, tangent, rtol=0, atol=1e-6)


def slow(x, y, margins, squared):
    """Mean over all triplets, in a loop."""
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    d = d**2 if squared else d
    terms = [
        max(d[a, p] - d[a, n] + margins[a, n], 0)
        for a, p, n in product(range(len(y)), repeat=3)
        if a != p and y[a] == y[p] != y[n]
    ]
    return sum(terms) / (2 * max(len(terms), 1))


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=10),
    seed=st.integers(0, 99),
    squared=st.booleans(),
    tree=st.booleans(),
)
def test_is_the_formula_in_loops(labels, seed, squared, tree):
    x = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed)).double()
    y = torch.tensor(labels)
    loss = HierarchicalTriplet(4, 3, tree="epoch", squared=squared, levels=5).double()
    if tree:
        loss.survey(*batch([4, 3, 5, 2], seed=seed))
    margins = loss.margins(y, y).numpy()
    expected = slow(unit(x).numpy(), labels, margins, squared)
    assert loss(x, y).item() == pytest.approx(expected, abs=1e-9)
    a, p, n = (torch.tensor(t) for t in ([0], [0], [len(y) - 1]))
    d = squared_distances(unit(x)) if squared else squared_distances(unit(x)).sqrt()
    one = (d[0, 0] - d[0, n] + margins[0, len(y) - 1]).clamp_min(0) / 2
    torch.testing.assert_close(loss(x, y, (a, p, n)), one[0])


@pytest.mark.parametrize("name", LINKAGES)
@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_scipys(name, seed):
    """d_H is the first threshold above the height at which scipy merges two classes."""
    x, y = batch([3, 4, 2, 5, 3, 2, 4], dim=4, seed=seed)
    means, sizes = class_means(x, y, 7)
    node, thresholds, _ = levels_of(means, sizes, 9, name)
    distance = (2 - 2 * means @ means.T).numpy()
    np.fill_diagonal(distance, 0)
    heights = squareform(cophenet(linkage(squareform(distance, checks=False), name)))
    level = np.searchsorted(thresholds[:-1].numpy(), heights, side="right")
    expected = thresholds.numpy()[level]
    np.fill_diagonal(expected, 0)
    loss = surveyed(x, y, 7, levels=9, linkage=name)
    np.testing.assert_allclose(merge_heights(loss), expected, rtol=0, atol=1e-12)
    assert (node[-1] == 0).all()
    for lower, upper in pairwise(node):  # components are nested
        same = lower[:, None] == lower
        assert (upper[:, None] == upper)[same].all()


@pytest.mark.parametrize("name", LINKAGES)
def test_the_tree_is_an_ultrametric_and_knows_no_order(name):
    x, y = batch([3, 4, 2, 5, 3, 2], dim=4)
    found = merge_heights(surveyed(x, y, 6, levels=12, linkage=name))
    larger = torch.maximum(found[:, None, :], found.T[None, :, :])
    assert (found <= larger.amin(2) + 1e-12).all()
    shuffle = torch.randperm(6)
    other = merge_heights(surveyed(x, shuffle[y], 6, levels=12, linkage=name))
    torch.testing.assert_close(other[shuffle][:, shuffle], found)


def test_class_statistics_are_the_means_over_pairs():
    x, y = batch([4, 3, 2], dim=5)
    means, sizes = class_means(x, y, 3)
    square = squared_distances(unit(x))
    for c in range(3):
        inside = square[y == c][:, y == c]
        n = len(inside)
        assert spreads(means, sizes)[c] == pytest.approx(float(inside.sum() / (n * n - n)))
        for other in range(c):
            between = float(square[y == c][:, y == other].mean())
            assert 2 - 2 * float(means[c] @ means[other]) == pytest.approx(between)


def test_one_margin_for_all_is_the_triplet_loss():
    """Before the first tree; and the hinge of Triplet where distances are not squared."""
    x, y = batch([4, 3, 3], dim=4)
    plain = HierarchicalTriplet(3, 4, squared=False, margin=0.3).double()
    torch.testing.assert_close(plain(x, y), Triplet(0.3, mean="all")(unit(x), y) / 2)
    assert plain.active(x, y) == Triplet(0.3).active(unit(x), y)
    squared = HierarchicalTriplet(3, 4).double()
    expected = share_within(squared_distances(unit(x)), y, 0.2)
    assert squared.active(x, y) == expected


def test_gradcheck_away_from_switches():
    x, y = batch([4, 3, 3], dim=4)
    for squared in (True, False):
        loss = surveyed(x, y, 3, squared=squared)
        inputs = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, f=loss: f(x, y), (inputs,))


@settings(max_examples=60, deadline=None)
@given(case=batches(), name=st.sampled_from(sorted(LINKAGES)), squared=st.booleans())
def test_is_finite_on_batches_of_any_shape(case, name, squared):
    """A survey of the same odd batch: classes of one, classes that are missing, one point."""
    x, y = case
    loss = surveyed(x, y, 5, linkage=name, squared=squared, levels=4)
    for buffer in (loss.thresholds, loss.within, loss.margins(y, y)):
        assert buffer.isfinite().all()
    value = loss(x, y)
    assert value.isfinite()
    assert gradient(loss, x, y).isfinite().all()
    assert 0 <= loss.active(x, y) <= 1
    kinds, counts = y.unique(return_counts=True)
    if len(kinds) == 1 or counts.max() == 1:
        assert value == 0
        assert (gradient(loss, x, y) == 0).all()


def test_a_class_of_one_has_the_mean_spread_and_one_point_is_one_node():
    x, y = batch([3, 3, 1], dim=4)
    loss = surveyed(x, y, 3)
    assert loss.within[2] == loss.thresholds[0] == loss.within[:2].mean()
    one_point = surveyed(x[:1].repeat(7, 1), y, 3)
    assert (one_point.node == one_point.node[:, :1]).all()  # all merge at once
    found = one_point.margins(torch.arange(3), torch.arange(3))
    torch.testing.assert_close(found, torch.full_like(found, 0.1))


@pytest.mark.parametrize("name", LINKAGES)
def test_opposite_classes_merge_at_the_root_though_their_distance_is_no_less(name):
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]).double()
    y = torch.tensor([0, 0, 1, 1])
    loss = surveyed(x, y, 2, linkage=name, levels=3)
    assert loss.thresholds.tolist() == pytest.approx([0, 4 / 3, 8 / 3, 4])
    assert (loss.node[:-1, 0] != loss.node[:-1, 1]).all()
    assert loss.margins(y[:1], y[2:3]).item() == pytest.approx(4.1)


def test_classes_that_are_not_surveyed_merge_with_others_at_the_root_alone():
    x, y = batch([3, 3, 3], dim=4)
    loss = surveyed(x[y != 1], y[y != 1], 4)
    found = loss.margins(torch.tensor([0]), torch.tensor([1, 3]))
    torch.testing.assert_close(found, (0.1 + 4 - loss.within[:1, None]).expand(1, 2))
    assert loss(x, y).isfinite()


def test_the_running_tree_is_that_of_the_batches_seen():
    (a, ya), (b, yb) = batch([3, 2, 2], seed=1), batch([2, 3, 2], seed=2)
    running = HierarchicalTriplet(3, 3).double()
    running(a, ya)
    running(b, yb)
    assert not running.sizes.any()  # no tree yet: one margin
    running.survey()
    whole = surveyed(torch.cat([a, b]), torch.cat([ya, yb]), 3)
    torch.testing.assert_close(running.margins(ya, ya), whole.margins(ya, ya))
    running.eval()
    running(a, ya)
    assert running.counts.sum() == 0  # it learns in training mode only
    before = running.node.clone()
    running.survey()  # nothing was seen since: the tree stays
    assert torch.equal(running.node, before)
    running.train()
    only = ya == 0
    running(a[only], ya[only])
    running.survey()
    torch.testing.assert_close(running.means[1:], whole.means[1:])  # unseen classes keep theirs


def test_its_state_is_in_buffers():
    x, y = batch([3, 2, 2])
    loss, other = (HierarchicalTriplet(3, 3).double() for _ in range(2))
    loss(x, y)
    loss.survey()
    loss(x + 1, y)
    other.load_state_dict(loss.state_dict())
    for one in (loss, other):
        one.survey()
        one(x - 1, y)
    assert loss(x, y) == other(x, y)
    for a, b in zip(loss.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_the_nearest_classes_are_by_the_distance_of_their_means():
    x, y = batch([3, 4, 2, 5, 3], dim=4)
    means, sizes = class_means(x, y, 6)  # class 5 has no items
    found = nearest_classes(means, sizes, 7)
    distance = (2 - 2 * means @ means.T)[:5, :5].fill_diagonal_(9)
    assert torch.equal(found[:5, :4], distance.argsort(1)[:, :4])
    assert (found[:5, 4:] == -1).all()
    assert (found[5] == -1).all()
    loss: Any = surveyed(x, y, 6)
    assert torch.equal(loss.near(3), found[:, :3])
    assert HierarchicalTriplet(6, 4).near(3) is None


def test_a_memory_brings_references_with_margins_of_their_own():
    (old, old_y), (x, y) = batch([3, 2, 2], seed=1), batch([2, 2, 3], seed=2)
    loss = surveyed(old, old_y, 3)
    memory = Memory(loss, 50)
    memory(old, old_y)
    z, labels = unit(torch.cat([x, old])), torch.cat([y, old_y])
    margins, square = loss.margins(y, labels).numpy(), squared_distances(unit(x), z)
    terms = [
        max(float(square[a, p] - square[a, n] + margins[a, n]), 0)
        for a, p, n in product(range(len(x)), range(len(z)), range(len(z)))
        if a != p and y[a] == labels[p] != labels[n]
    ]
    assert memory(x, y).item() == pytest.approx(sum(terms) / (2 * len(terms)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tree": "yearly"}, "unknown tree 'yearly'"),
        ({"linkage": "ward"}, "unknown linkage 'ward'"),
        ({"levels": 0}, "levels must be a number of 1 or more"),
        ({"margin": 0.0}, "margin must be a number above 0"),
    ],
)
def test_options_are_strict(options, said):
    with pytest.raises(ValueError, match=said):
        HierarchicalTriplet(3, 4, **options)
