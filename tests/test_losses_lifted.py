"""Lifted structure equals its formula, pair by pair, and its twin in pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import LiftedStructureLoss

from nearkin.losses import LiftedStructure
from nearkin.tensors import unit


def batch(labels, seed=0, dim=5):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), dim, generator=random).double(), torch.tensor(labels)


def pair_by_pair(x, labels, margin):
    x, y, terms = unit(x), labels.tolist(), []

    def lifted(i):
        others = [k for k in range(len(y)) if y[k] != y[i]]
        return sum(math.exp(margin - float((x[i] - x[k]).norm())) for k in others)

    for i in range(len(y)):
        for j in range(len(y)):
            if i != j and y[i] == y[j]:
                d = float((x[i] - x[j]).norm())
                both = lifted(i) + lifted(j)
                terms.append(max(0.0, math.log(both) + d) ** 2 if both else 0.0)
    return sum(terms) / len(terms) / 2 if terms else 0.0


@pytest.mark.parametrize("margin", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 2], [3, 3, 3, 9], [0, 0, 0], [0, 1, 2]])
def test_equals_the_formula_pair_by_pair(labels, margin):
    x, y = batch(labels)
    ours = LiftedStructure(margin)(x, y)
    assert float(ours) == pytest.approx(pair_by_pair(x, y, margin), abs=1e-12)


@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_equals_its_twin_in_value_and_gradient(margin):
    x, y = batch([0, 0, 1, 1, 2, 2, 2, 3, 4, 4], seed=1)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = LiftedStructure(margin)(ours, y)
    twin = LiftedStructureLoss(neg_margin=margin)(theirs, y)
    torch.testing.assert_close(value, twin)
    value.backward()
    twin.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_active_is_the_share_of_kin_that_still_attract():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y = torch.tensor([0, 0, 1, 1])
    # class 0: log(4 e^(m - 1.41)) + 0, below 0 for m = 0; class 1: the same + 2
    assert LiftedStructure(0.0).active(x, y) == 0.5
    assert LiftedStructure(9.0).active(x, y) == 1.0
    assert LiftedStructure(0.0).active(x[:2].repeat(2, 1), torch.tensor([0, 0, 0, 0])) == 0.0
