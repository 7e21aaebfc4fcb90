"""Claim: metrics of embeddings that come batch by batch are those of all of them at once."""

from typing import Any

import numpy as np
import pytest
import torch

import nearkin as nk

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 7


def filled(sizes, labels: Any = Y, **options):
    metrics = nk.Accumulator(**options)
    for x, y in zip(
        X.split(sizes), np.split(np.asarray(labels), np.cumsum(sizes)[:-1]), strict=True
    ):
        metrics.update(x, y)
    return metrics


@pytest.mark.parametrize("sizes", [[60], [20, 20, 20], [1, 58, 1]])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_batches_are_as_good_as_the_whole(sizes, metric):
    options = {"metric": metric, "ks": (1, 3)}
    assert filled(sizes, **options).compute() == nk.evaluate(X, Y, **options)


def test_options_may_come_late_and_batches_may_go_on():
    metrics = filled([30, 30], clusters=False)
    assert metrics.compute(ks=(2,)) == nk.evaluate(X, Y, ks=(2,), clusters=False)
    metrics.update(X[:5].numpy(), Y[:5].tolist())
    wanted = nk.evaluate(torch.cat([X, X[:5]]), torch.cat([Y, Y[:5]]), clusters=False)
    assert metrics.compute() == wanted
    assert metrics.reset() is metrics
    with pytest.raises(ValueError, match="wanted a batch of queries"):
        metrics.compute()


def test_a_gallery_apart():
    metrics = nk.Accumulator(clusters=False)
    for part in range(0, 40, 10):
        metrics.update(X[part : part + 10], Y[part : part + 10], gallery=True)
    metrics.update(X[40:], Y[40:])
    assert metrics.compute() == nk.evaluate(X[40:], Y[40:], X[:40], Y[:40], clusters=False)


def test_labels_of_any_kind_and_embeddings_that_learn():
    names = np.array([f"class {label}" for label in Y.tolist()])
    assert filled([30, 30], names).compute() == nk.evaluate(X, Y)
    metrics = nk.Accumulator(clusters=False)
    metrics.update(X.clone().requires_grad_(), names.astype(bytes))
    assert metrics.compute() == nk.evaluate(X, Y, clusters=False)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([(X, Y[:5])], "labels must be 60 integers or texts, one an embedding, got 5"),
        ([(X, Y), (X[:, :3], Y)], "embeddings of 5 dimensions, as before, got 3"),
        ([(X, Y), (X, [str(y) for y in Y])], "labels must be of one kind"),
        ([(X[0], Y[0])], "embeddings must be a matrix"),
    ],
)
def test_errors_say_what_was_wanted(batches, said):
    def computed():
        metrics = nk.Accumulator()
        for x, y in batches:
            metrics.update(x, y)
        return metrics.compute()

    with pytest.raises(ValueError, match=said) as caught:
        computed()
    assert "\n" not in str(caught.value)


def test_a_batch_may_be_overwritten_by_the_next_one():
    metrics, x = nk.Accumulator(), np.empty((20, X.shape[1]), np.float32)
    for start in range(0, 60, 20):  # as a loop fills one buffer again and again
        x[:] = X[start : start + 20]
        metrics.update(x, Y[start : start + 20])
    assert metrics.compute() == nk.evaluate(X, Y)


def test_an_unknown_option_is_named_at_once():
    with pytest.raises(ValueError, match="unknown option of evaluate 'kz': did you mean 'ks'"):
        nk.Accumulator(kz=[1])
    metrics = nk.Accumulator()
    metrics.update(X, Y)
    with pytest.raises(ValueError, match="unknown option of evaluate 'gallery'"):
        metrics.compute(gallery=X)
