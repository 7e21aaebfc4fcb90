"""Claim: k-means finds classes that lie apart, whatever their scale and the seed.

Elsewhere it is as good as scikit-learn's, started as often, and the same for the same seed.
"""

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from nearkin.measure import CHANGED, VERSIONS, clusters, evaluate
from nearkin.measure.clusters import k_means


def blobs(classes: int, size: int, spread: float, seed: int = 0, dim: int = 64):
    """Classes of `size` items around centres that are sqrt(2 dim) apart, `spread` in each axis."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(size)
    noise = torch.randn(len(labels), dim, generator=random)
    return torch.randn(classes, dim, generator=random)[labels] + spread * noise, labels


def sum_of_squares(x: Tensor, cluster: Tensor) -> float:
    x = x.double()
    means = torch.stack([x[cluster == c].mean(0) for c in cluster.unique()])
    return float((x - means[cluster.unique(return_inverse=True)[1]]).square().sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("classes", "size"), [(2, 30), (10, 30), (100, 30), (400, 5)])
def test_classes_that_lie_far_apart_are_found_whole(classes, size, seed):
    x, labels = blobs(classes, size, 0.1, seed)
    found = evaluate(
        x, labels, metric="euclidean", ks=[1], precision_ks=[], clusters=True, seed=seed
    )
    assert found["nmi"] == found["ami"] == found["recall@1"] == 1


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e25])
def test_neither_scale_nor_origin_matters(scale):
    x, labels = blobs(20, 10, 0.1)
    for moved in (scale * x, scale * (x + 1000), (scale * x).double()):
        found = evaluate(moved, labels, metric="euclidean", ks=[1], precision_ks=[], clusters=True)
        assert found["nmi"] == 1


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_clusters_are_as_tight_as_those_of_scikit_learn(spread):
    x, _ = blobs(60, 10, spread, dim=16)
    theirs = KMeans(60, n_init=2, max_iter=20, random_state=0)  # type: ignore
    wanted = theirs.fit(x.numpy()).inertia_
    for seed in range(3):
        assert sum_of_squares(x, k_means(x, 60, seed)) < 1.03 * wanted  # type: ignore


def test_the_same_seed_gives_the_same_clusters_and_takes_no_luck_of_others():
    x, _ = blobs(30, 10, 1.0)
    before = torch.random.get_rng_state()
    first = k_means(x, 30, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, k_means(x, 30, seed=5))


def test_of_large_data_the_better_of_two_starts_is_refined(monkeypatch):
    refined = []

    def noted(x, centres, whole=clusters.refined_clusters):
        refined.append(len(centres))
        return whole(x, centres)

    monkeypatch.setattr(clusters, "refined_clusters", noted)
    x, labels = blobs(40, 8, 0.1)
    k_means(x, 40)
    assert refined == [40, 40]
    monkeypatch.setattr(clusters, "WORK", 1.0)
    found = evaluate(x, labels, metric="euclidean", ks=[1], precision_ks=[], clusters=True)
    assert refined == [40] * 3
    assert found["nmi"] == 1


def test_fewer_rows_that_differ_than_clusters():
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[torch.arange(12) % 2]
    found = k_means(x, 5)
    assert sum_of_squares(x, found) == 0
    assert k_means(torch.ones(6, 3), 4).unique().numel() == 1
    every = k_means(torch.eye(7), 7)
    assert every.unique().numel() == 7
    assert k_means(x, 1).tolist() == [0] * 12


def test_a_cluster_that_nobody_is_in_moves_to_a_far_row():
    x = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
    cluster, square = torch.tensor([0, 0, 0, 0]), x[:, 0].square()
    assert clusters.means(x, cluster, square, 2).tolist() == [[pytest.approx(3.525)], [9.0]]


def test_what_is_measured_anew_has_a_new_version():
    assert VERSIONS["nmi"] == VERSIONS["ami"] == 2
    assert CHANGED.keys() == VERSIONS.keys()  # what changed is said
