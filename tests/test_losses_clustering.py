"""The clustering loss: golden values, exhaustive search, and the slow loops of its formula."""

import math
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from batches import batch, batches, gradient
from goldens import cases
from nearkin.losses import Clustering
from nearkin.losses.clustering import excess
from nearkin.tensors import distances, unit


@cache
def nmi_of(y, groups, mean):
    """scikit-learn's, once for each way to group: it takes half a millisecond."""
    return normalized_mutual_info_score(y, groups, average_method=mean)


def assigned(d, chosen):
    """The nearest of the chosen for each item, an item of them its own: their places."""
    return [
        list(chosen).index(i)
        if i in chosen
        else min(range(len(chosen)), key=lambda k: d[i, chosen[k]])
        for i in range(len(d))
    ]


def augmented(d, y, chosen, gamma, mean):
    """F(S) + gamma (1 - NMI), from the formula."""
    groups = assigned(d, chosen)
    energy = -sum(d[i, chosen[k]] for i, k in enumerate(groups))
    return energy + gamma * (1 - nmi_of(tuple(y), tuple(groups), mean))


def oracle(d, y):
    total = 0.0
    for k in set(y):
        members = [i for i in range(len(y)) if y[i] == k]
        total += max(-sum(d[i, j] for i in members) for j in members)
    return total


def greedy(d, y, gamma, mean):
    chosen: list[int] = []
    while len(chosen) < len(set(y)):
        rest = [j for j in range(len(y)) if j not in chosen]
        chosen.append(max(rest, key=lambda j: augmented(d, y, [*chosen, j], gamma, mean)))
    return chosen


def refined(d, y, chosen, gamma, mean, rounds):
    chosen = list(chosen)
    for _ in range(rounds):
        groups = assigned(d, chosen)
        for r in range(len(chosen)):
            members = [i for i in range(len(y)) if groups[i] == r]

            def worth(j, r=r, members=members):
                tried = [*chosen[:r], j, *chosen[r + 1 :]]
                nmi = nmi_of(tuple(y), tuple(assigned(d, tried)), mean)
                return -sum(d[i, j] for i in members) + gamma * (1 - nmi)

            chosen[r] = max(members, key=worth)
    return chosen


def slow(x, y, gamma, mean="geometric", rounds=5):
    """The loss before its hinge, in float64 loops."""
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    chosen = refined(d, y, greedy(d, y, gamma, mean), gamma, mean, rounds)
    return augmented(d, y, chosen, gamma, mean) - oracle(d, y)


def exact(x, y, gamma, mean="geometric"):
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    subsets = combinations(range(len(y)), len(set(y)))
    return max(augmented(d, y, s, gamma, mean) for s in subsets) - oracle(d, y)


@pytest.mark.parametrize("case", cases("clustering"))
def test_golden_values(case):
    x = torch.tensor(case["inputs"]["x"], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(case["inputs"]["y"])
    options, expected = case["options"], case["expected"]
    gamma, nmi = options.get("gamma", 1.0), options.get("nmi", "geometric")
    values = {}
    for name, rounds in (("greedy", 0), ("pam", options.get("rounds", 5))):
        values[name] = excess(x, y, gamma, nmi, rounds).clamp_min(0)
        assert values[name].item() == pytest.approx(expected["loss"][name], abs=1e-9)
    assert exact(x.detach().numpy(), y.tolist(), gamma, nmi) == pytest.approx(
        expected["augmented"]["exact"] - expected["oracle"], abs=1e-9
    )
    found = torch.autograd.grad(values["pam"], x)[0]
    gradient = case["gradient_pam"] or 0 * x.detach().numpy()  # none where the loss is 0
    np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-6)
    if torch.allclose(x.norm(dim=1), torch.ones(()).double()):
        loss = Clustering(gamma, nmi, options.get("rounds", 5))
        assert loss(x, y).item() == pytest.approx(values["pam"].item(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=3, max_size=9),
    seed=st.integers(0, 99),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    mean=st.sampled_from(["geometric", "arithmetic"]),
    rounds=st.sampled_from([0, 1, 5]),
)
def test_is_the_formula_in_loops(labels, seed, gamma, mean, rounds):
    x = unit(torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(seed)).double())
    value = Clustering(gamma, mean, rounds)(x, torch.tensor(labels)).item()
    if len(set(labels)) in (1, len(labels)):
        assert value == 0
        return
    expected = slow(x.numpy(), labels, gamma, mean, rounds)
    assert value == pytest.approx(max(expected, 0), abs=1e-9)
    assert value <= max(exact(x.numpy(), labels, gamma, mean), 0) + 1e-9


def test_the_refinement_never_loses_and_mostly_finds_the_best():
    found = []
    for seed in range(40):
        x, y = batch([3, 2, 2], seed=seed)
        x = unit(x)
        steps = [excess(x, y, 1.0, "geometric", rounds).item() for rounds in range(6)]
        assert all(b >= a - 1e-9 for a, b in pairwise(steps))
        found.append(steps[-1] >= exact(x.numpy(), y.tolist(), 1.0) - 1e-9)
    assert sum(found) >= 30


def test_gradcheck_away_from_switches():
    for sizes, gamma in (([3, 3], 1.0), ([3, 2, 2], 4.0), ([5, 2], 0.0)):
        x, y = batch(sizes, dim=4)
        loss = Clustering(gamma)
        assert loss(x, y) > 0
        assert torch.autograd.gradcheck(lambda x, y=y, f=loss: f(x, y), (x.requires_grad_(),))


@settings(max_examples=60, deadline=None)
@given(case=batches(), gamma=st.sampled_from([0.0, 1.0, 5.0]), mean=st.booleans())
def test_is_finite_and_never_below_0_on_batches_of_any_shape(case, gamma, mean):
    x, y = case
    loss = Clustering(gamma, mean=mean)
    value = loss(x, y)
    assert value.isfinite()
    assert value >= 0
    assert gradient(loss, x, y).isfinite().all()
    if len(y.unique()) in (1, len(y)):
        assert value == 0
        assert (gradient(loss, x, y) == 0).all()
        assert loss.active(x, y) == 0


def test_does_not_depend_on_rotation_names_or_order():
    x, y = batch([4, 3, 3], dim=5)
    loss = Clustering(2.0)
    value = loss(x, y).item()
    turn = torch.linalg.qr(torch.randn(5, 5).double())[0]
    shuffle = torch.randperm(len(y))
    assert loss(x @ turn, y).item() == pytest.approx(value, abs=1e-9)
    assert loss(3 * x, 100 - 7 * y).item() == pytest.approx(value, abs=1e-9)
    assert loss(x[shuffle], y[shuffle]).item() == pytest.approx(value, abs=1e-9)


def test_gamma_widens_the_margin_and_mean_divides_by_the_batch():
    x, y = batch([4, 4, 4])
    values = [Clustering(gamma)(x, y).item() for gamma in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)
    for gamma in (0.0, 0.25):
        shared = Clustering(gamma, mean=True)(x, y)
        torch.testing.assert_close(shared, Clustering(gamma * len(y))(x, y) / len(y))


def test_a_medoid_is_its_own_beside_its_double():
    """Two classes at one point: the doubles stay with the first, as medoids each has itself."""
    x = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2).double()
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    value = Clustering()(x, y).item()
    assert value == pytest.approx(slow(x.numpy(), y.tolist(), 1.0), abs=1e-9)
    assert math.isfinite(value)
    assert gradient(Clustering(), x, y).isfinite().all()


def test_half_precision_has_the_clusters_of_float32():
    x, y = batch([8, 8, 8], dim=8)
    low = x.bfloat16()
    torch.testing.assert_close(Clustering()(low, y), Clustering()(low.float(), y))
    assert Clustering()(low, y).dtype == torch.float32


def test_active_is_whether_the_hinge_is():
    x, y = batch([4, 4])
    assert Clustering().active(x, y) == 1
    apart = torch.eye(2).double()[y] + 0.001 * x[:, :2]
    assert Clustering(0.5).active(apart, y) == 0
    assert distances(unit(apart)).max() > 1


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"rounds": -1}, {"nmi": "harmonic"}])
def test_options_are_strict(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Clustering(**options)
