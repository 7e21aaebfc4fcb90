"""A map keeps neighbours together, and tells where it does not."""

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness

from nearkin import neighbours
from nearkin.measure.plane import layout, principal, truth


def clusters(n: int = 400, kinds: int = 8, dim: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % kinds
    x = torch.randn(kinds, dim, generator=random)[labels]
    return x + 0.3 * torch.randn(n, dim, generator=random), labels


def test_principal_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    x, _ = clusters()
    ours, theirs = principal(x).numpy(), PCA(2).fit_transform(x.numpy())
    signs = np.sign((ours * theirs).sum(0))
    assert np.allclose(ours * signs, theirs, atol=1e-4)
    assert principal(torch.randn(5, 1)).shape == (5, 2)


def test_the_map_is_truer_than_principal_components():
    x, labels = clusters()
    indices = neighbours(x, k=10, metric="euclidean").indices
    flat = principal(x)
    places = layout(indices, flat)
    trust = [trustworthiness(x.numpy(), y.numpy(), n_neighbors=10) for y in (flat, places)]
    assert trust[1] > max(0.93, trust[0] + 0.02)
    near = neighbours(places, k=1, metric="euclidean").indices[:, 0]
    assert (labels[near] == labels).float().mean() > 0.97


def test_it_is_the_same_for_the_same_seed():
    x, _ = clusters(100)
    indices = neighbours(x, k=5).indices
    one, again, other = (layout(indices, principal(x), steps=20, seed=s) for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_truth_by_a_slow_loop():
    x, _ = clusters(60)
    indices, places = neighbours(x, k=4).indices, principal(x)
    expected = []
    for i in range(60):
        order = (places - places[i]).norm(dim=1).argsort()
        near = [j for j in order.tolist() if j != i][:12]
        expected.append(sum(j in near for j in indices[i].tolist()) / 4)
    assert truth(indices, places).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_items_and_items_that_are_all_one(n):
    x = torch.zeros(n, 4)
    indices = torch.tensor([[j for j in range(n) if j != i][:2] for i in range(n)]).reshape(n, -1)
    places = layout(indices, principal(x))
    assert places.shape == (n, 2)
    assert places.isfinite().all()
    assert truth(indices, places).isfinite().all() or indices.shape[1] == 0
