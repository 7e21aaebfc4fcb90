"""The spanning-tree miner: golden trees, all trees by Prüfer codes, scipy's; and two streams."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree

from batches import batch, batches
from goldens import cases
from nearkin.data.samplers import Batches, structure
from nearkin.data.streams import chain_of_classes, passes, streams
from nearkin.losses import (
    AllPairs,
    Contrastive,
    HierarchicalTriplet,
    SpanningTree,
    Triplet,
    make_miner,
)
from nearkin.losses.mining import both_ways, class_trees, spanning_edges
from nearkin.tensors import distances, unit


def edges_of(mined) -> list[tuple[int, int]]:
    """The edges, each once, in rising order."""
    return sorted(
        {(min(e), max(e)) for e in zip(mined[0].tolist(), mined[1].tolist(), strict=True)}
    )


def cost(x, edges) -> float:
    return sum(float((x[i] - x[j]).norm()) for i, j in edges)


@pytest.mark.parametrize("case", cases("damlrrm"))
def test_golden_values(case):
    z = torch.tensor(case["inputs"]["z"], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(case["inputs"]["y"])
    u = torch.tensor(case["inputs"].get("u", case["inputs"]["z"]), dtype=torch.float64)
    options, expected = case["options"], case["expected"]
    mined = SpanningTree()(u, y)
    assert [list(edge) for edge in edges_of(mined)] == sorted(expected["edges"])
    assert cost(u, edges_of(mined)) == pytest.approx(expected["cost"], abs=1e-9)
    a, p, m, n = mined
    hinge = HierarchicalTriplet(int(y.max()) + 1, 2, margin=options["margin"]).double()
    product_ = z @ z.T
    excess = options["scale"] * (product_[a] - product_[a, p][:, None])  # (E, B)
    excess = excess.masked_fill(y[a][:, None] == y, -torch.inf)
    near = (options["contrastive_margin"] - (z[m] - z[n]).norm(dim=1)).clamp_min(0)
    values = {
        "triplet": 2 * hinge(z, y, mined),
        "n_pair": torch.cat([torch.zeros_like(excess[:, :1]), excess], 1).logsumexp(1).mean(),
        "contrastive": (z[a] - z[p]).square().sum(1).mean() / 2 + near.square().mean() / 2,
    }
    for name, value in values.items():
        assert value.item() == pytest.approx(expected[name], abs=1e-6)
        (found,) = torch.autograd.grad(value, z, retain_graph=True)
        theirs = torch.tensor(case["gradients"][name], dtype=torch.float64)
        if name == "triplet":  # that loss normalises inside
            theirs = theirs - (theirs * z.detach()).sum(1, keepdim=True) * z.detach()
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-6)


def trees(n: int):
    """Every tree on 0..n-1, by its Prüfer code."""
    if n == 2:
        yield [(0, 1)]
        return
    for code in product(range(n), repeat=n - 2):
        degree = [1 + code.count(i) for i in range(n)]
        edges = []
        for i in code:
            leaf = degree.index(1)
            edges.append((leaf, i))
            degree[leaf], degree[i] = 0, degree[i] - 1
        edges.append(tuple(i for i in range(n) if degree[i] == 1))
        yield edges


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_no_tree_is_shorter(n):
    x, _ = batch([n])
    found = edges_of(SpanningTree()(x, torch.zeros(n, dtype=torch.int64)))
    assert cost(x, found) == pytest.approx(min(cost(x, tree) for tree in trees(n)))


@settings(max_examples=50, deadline=None)
@given(case=batches())
def test_every_class_gets_a_tree_whatever_the_batch(case):
    x, y = case
    mined = SpanningTree()(x, y)
    found, sizes = edges_of(mined), y.bincount()
    assert len(found) == int((sizes - 1).clamp_min(0).sum())
    assert len(mined[0]) == 2 * len(found)
    assert all(y[i] == y[j] for i, j in found)
    reached = torch.eye(len(y), dtype=torch.bool)  # connected: every image reaches its class
    for i, j in found:
        reached[i, j] = reached[j, i] = True
    for _ in range(len(y)):
        reached = (reached.float() @ reached.float()) > 0
    assert torch.equal(reached, y[:, None] == y)
    others = set(zip(mined[2].tolist(), mined[3].tolist(), strict=True))
    assert others == {(i, j) for i, j in product(range(len(y)), repeat=2) if y[i] != y[j]}


def test_is_scipys_tree_class_by_class():
    x, y = batch([9, 1, 12, 5], dim=4)
    found = edges_of(SpanningTree()(x, y))
    expected = []
    for c in range(4):
        members = (y == c).nonzero()[:, 0]
        tree = minimum_spanning_tree(distances(x[members]).numpy()).tocoo()
        pairs = zip(tree.row.tolist(), tree.col.tolist(), strict=True)
        expected += [tuple(sorted((int(members[i]), int(members[j])))) for i, j in pairs]
    assert found == sorted(expected)
    assert sorted(tuple(sorted(e)) for e in class_trees(x, y).tolist()) == sorted(expected)


def test_holds_every_images_nearest_kin():
    x, y = batch([6, 5, 4])
    found = set(edges_of(SpanningTree()(x, y)))
    kin = distances(x).masked_fill(y[:, None] != y, torch.inf).fill_diagonal_(torch.inf)
    for i, j in enumerate(kin.argmin(1).tolist()):
        assert (min(i, j), max(i, j)) in found


def test_two_images_of_a_class_leave_the_loss_as_it_is():
    x, y = batch([2, 2, 2])
    for loss in (Contrastive(), Triplet(0.5)):
        torch.testing.assert_close(loss(x, y, SpanningTree()(x, y)), loss(x, y))


def test_gradcheck_of_pair_losses_along_the_edges():
    x, y = batch([4, 3, 1], dim=4)
    pairs = SpanningTree()(x, y)
    for loss in (Contrastive(1.5), Triplet(0.5), HierarchicalTriplet(3, 4).double()):
        inputs = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, f=loss: f(x, y, pairs), (inputs,))


def test_all_pairs_are_what_a_loss_takes_without_a_miner():
    x, y = batch([4, 3, 1])
    for loss in (Contrastive(), Triplet(0.5)):
        torch.testing.assert_close(loss(x, y, AllPairs()(x, y)), loss(x, y))
    miner: Any = make_miner("all", "cosine")
    assert len(miner(x[:0], y[:0])[0]) == 0


def test_knows_ranks_alone():
    x, y = batch([6, 5])
    square = distances(x) ** 2
    first, second = (spanning_edges(d, y) for d in (distances(x), square))
    assert torch.equal(first, second)
    turn = torch.linalg.qr(torch.randn(3, 3).double())[0]
    assert edges_of(SpanningTree()(x @ turn, y)) == edges_of(SpanningTree()(x, y))


def test_doubles_are_joined_too():
    x = torch.tensor([[0.0], [0.0], [0.0], [5.0]])
    found = edges_of(SpanningTree()(x, torch.zeros(4, dtype=torch.int64)))
    assert len(found) == 3
    assert cost(x, found) == 5


def test_the_distance_is_that_of_the_loss():
    x, y = batch([6, 5])
    x = x * torch.linspace(1, 9, len(x))[:, None]
    by_angle = edges_of(SpanningTree("cosine")(x, y))
    assert by_angle == edges_of(SpanningTree()(unit(x), y)) != edges_of(SpanningTree()(x, y))
    miner: Any = make_miner("spanning-tree", "cosine")
    assert edges_of(miner(x, y)) == by_angle
    with pytest.raises(ValueError, match="unknown metric"):
        SpanningTree("manhattan")


def test_no_edge_is_a_loss_of_0_with_a_gradient():
    x, y = batch([1, 1, 1])
    x.requires_grad_()
    value = Triplet(0.5)(x, y, SpanningTree()(x.detach(), y))
    (gradient,) = torch.autograd.grad(value, x)
    assert value == 0
    assert (gradient == 0).all()
    empty = SpanningTree()(x[:0], y[:0])
    assert [len(index) for index in empty] == [0, 0, 0, 0]


def labels_of(sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=8), seed=st.integers(0, 5))
def test_streams_go_through_all_edges_and_all_images_before_any_comes_again(sizes, seed):
    y = labels_of([*sizes, 2])
    x = torch.randn(len(y), 3, generator=torch.Generator().manual_seed(seed))
    edges = class_trees(x, y)
    steps = torch.cat([streams(y, 8, 0, seed, epoch, edges) for epoch in range(6)])
    known = {tuple(edge) for edge in edges.tolist()}
    drawn = [tuple(e) for e in steps[:, :4].reshape(-1, 2).tolist()]
    assert set(drawn) <= known
    for stream, count in ((drawn, len(edges)), (steps[:, 4:].flatten().tolist(), len(y))):
        for start in range(0, len(stream) - count + 1, count):
            assert len(set(stream[start : start + count])) == count


def test_streams_are_pure_and_drift_apart():
    y = labels_of([4] * 6)
    edges = chain_of_classes(y)
    assert len(edges) == 18
    first, again = (streams(y, 8, 0, 3, 2, edges) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, streams(y, 8, 0, 3, 3, edges))
    assert torch.equal(first, streams(y, 8, 0, 3, 2))  # chains are what is taken by default
    whole = [passes(5, 2, 3, (0, 2), epoch) for epoch in range(4)]
    assert (
        np.concatenate(whole).flatten().tolist() == passes(5, 2, 12, (0, 2), 0).flatten().tolist()
    )


def test_a_batch_of_streams_draws_together_what_edges_join():
    y = labels_of([4] * 6)
    (batch_,) = streams(y, 24, 0, 0, 0)
    ends = structure("streams", 24)
    assert ends is not None
    labels = y[batch_]
    a, p, m, n = both_ways(torch.stack(ends, 1), labels)
    assert a.tolist() == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
    assert (labels[a] == labels[p]).all()
    assert (labels[m] != labels[n]).all()
    assert len(m) == int((labels[:, None] != labels).sum())


def test_streams_say_what_they_want():
    with pytest.raises(ValueError, match="a multiple of 4, got 10"):
        streams(labels_of([4, 4]), 10, 0, 0, 0)
    with pytest.raises(ValueError, match="wanted a class of two images"):
        streams(labels_of([1] * 9), 4, 0, 0, 0)


def test_batches_of_a_loader_may_be_told_the_edges():
    y = labels_of([3, 3])
    edges = torch.tensor([[0, 2], [3, 5]])
    batches_ = Batches(y, 4, "streams", edges=edges)
    assert set(next(iter(batches_))[:2]) in ({0, 2}, {3, 5})
    batches_.known["edges"] = torch.tensor([[1, 2]])
    batches_.set_epoch(1)
    assert next(iter(batches_))[:2] == [1, 2]
    assert len(list(combinations(range(3), 2))) == 3


def test_what_a_miner_names_may_be_lists_and_arrays():
    x, y = batch([2, 2, 2])
    triplets = [0, 2], [1, 3], [2, 0]
    for loss in (Contrastive(), Triplet(0.5)):
        wanted = loss(x, y, tuple(map(torch.tensor, triplets)))
        assert loss(x, y, triplets) == wanted
        assert loss(x, y, tuple(map(np.array, triplets))) == wanted
        with pytest.raises(ValueError, match="a miner's indices must be integers, got"):
            loss(x, y, ([0.5], [1], [2]))
