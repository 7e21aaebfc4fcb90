"""A gallery that stays open gives the neighbours of `neighbours`, to the last bit."""

import numpy as np
import pytest
import torch

from nearkin.measure.nearest import gallery as module
from nearkin.measure.nearest.gallery import Gallery
from nearkin.measure.nearest.search import neighbours

METRICS = ("cosine", "inner", "euclidean")


def items(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def equal(a, b) -> bool:
    return torch.equal(a.indices, b.indices) and torch.equal(a.similarities, b.similarities)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_it_is_neighbours_whatever_is_asked_in_whatever_order(metric, queries):
    x = items(3000, 24) * torch.rand(3000, 1).exp() + 0.3
    held = Gallery(x, metric)
    for seed, k in ((1, 1), (2, 10), (3, 1)):
        q = items(queries, 24, seed) + 0.3
        assert equal(held.neighbours(q, k), neighbours(q, k, x, metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_it_is_neighbours_where_it_is_held_in_parts(metric, monkeypatch):
    monkeypatch.setattr(module, "piece_size", lambda *_: 70)
    x = items(400, 8).round(decimals=1)  # with ties
    held = Gallery(x, metric)
    assert len(held.parts) == 6
    for k in (1, 90, 400):
        assert equal(held.neighbours(x[:5], k), neighbours(x[:5], k, x, metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lower_index(metric):
    x = items(10, 6).repeat(50, 1)
    found = Gallery(x, metric).neighbours(x[:3], 50)
    assert equal(found, neighbours(x[:3], 50, x, metric=metric))
    if metric != "inner":
        assert torch.equal(found.indices[:, :2], torch.tensor([[0, 10], [1, 11], [2, 12]]))


def test_numpy_and_half_precision_are_taken():
    x = np.random.default_rng(0).standard_normal((500, 12)).astype(np.float16)
    found, wanted = Gallery(x).neighbours(x[:2], 3), neighbours(x[:2], 3, x)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda held: held.neighbours(torch.ones(1, 3), 1), "query must have 2 columns, got 3"),
        (lambda held: held.neighbours(torch.ones(1, 2), 4), r"k must be in 1\.\.3, got 4"),
        (lambda held: held.neighbours(torch.tensor([[torch.nan, 1]]), 1), "NaN or infinity"),
        (lambda _: Gallery(torch.ones(3, 2), "manhattan"), "metric must be one of"),
        (lambda _: Gallery(torch.empty(0, 2)), "must be a matrix of numbers"),
    ],
)
def test_what_cannot_be_searched_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        asked(Gallery(torch.eye(3)[:, :2]))
