"""Claim: nk.Embedding is a transformer of scikit-learn, which trains what nk.fit trains."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from torch import nn

import nearkin as nk

RANDOM = np.random.default_rng(0)
Y = np.arange(90) % 6
X = RANDOM.normal(size=(6, 7))[Y] + 0.4 * RANDOM.normal(size=(90, 7))
NAMES = np.array(["f", "e", "d", "c", "b", "a"])[Y]


def small(**changes):
    options: dict[str, Any] = {"dim": 3, "epochs": 3, "batch": 32, "random_state": 0} | changes
    return nk.Embedding(**options)


@parametrize_with_checks([small(), small(loss="contrastive", backbone="mlp")])
def test_it_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_defaults_keep_it_too():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_estimator(nk.Embedding(epochs=1), on_skip=None)


def test_it_gives_what_fit_gives():
    found = small(random_state=4).fit(X, NAMES)
    seed = int(np.random.RandomState(4).randint(2**31 - 1))
    settings = {"sampler": "random", "batch": 32, "epochs": 3, "dim": 3, "seed": seed}
    wanted = nk.fit(
        "linear", "normalised-cross-entropy", X.astype(np.float32), NAMES, device="cpu", **settings
    )
    assert found.model_.identity == wanted.identity
    z = found.transform(X)
    assert z.dtype == np.float32
    assert np.array_equal(z, wanted.embed(X.astype(np.float32)).numpy())
    assert found.classes_.tolist() == list("abcdef")
    assert found.model_.classes == tuple("abcdef")


def test_names_of_what_comes_out():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"x{i}" for i in range(7)])
    found = small().set_output(transform="pandas").fit(frame, NAMES)
    assert found.get_feature_names_out().tolist() == ["embedding0", "embedding1", "embedding2"]
    z = found.transform(frame)
    assert list(z.columns) == ["embedding0", "embedding1", "embedding2"]
    assert found.feature_names_in_.tolist() == list(frame.columns)


def test_in_a_pipeline_and_a_grid_search():
    pipe = make_pipeline(StandardScaler(), small(lr=0.01), KNeighborsClassifier(3))
    grid = {
        "embedding__loss": ["contrastive", "normalised-cross-entropy"],
        "embedding__dim": [2, 4],
    }
    found = GridSearchCV(pipe, grid, cv=3).fit(X, NAMES)
    assert found.best_score_ > 0.8
    assert found.best_estimator_[1].transform(X).shape[1] == found.best_params_["embedding__dim"]


def test_learning_helps():
    noise = np.concatenate([X, 8 * RANDOM.normal(size=(90, 7))], 1)
    raw = nk.evaluate(noise, Y, clusters=False)["recall@1"]
    z = small(epochs=60, lr=0.03).fit(noise, Y).transform(noise)
    assert nk.evaluate(z, Y, clusters=False)["recall@1"] > raw + 0.2


def test_own_modules_are_copied_at_each_fit():
    torch.manual_seed(0)
    net, loss = nn.Linear(7, 2), nk.losses.Contrastive()
    before = net.weight.detach().clone()
    estimator = nk.Embedding(backbone=net, loss=loss, epochs=2, batch=32, random_state=0)
    first = estimator.fit(X, Y).transform(X)
    assert torch.equal(net.weight, before)
    assert np.array_equal(estimator.fit(X, Y).transform(X), first)
    copy: Any = clone(estimator)
    assert np.array_equal(copy.fit(X, Y).transform(X), first)
    assert first.shape == (90, 2)


def test_the_seed_comes_from_the_random_state():
    one, same, other = (small(random_state=s).fit(X, Y).transform(X) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    generator = np.random.RandomState(0)
    first, second = (small(random_state=generator).fit(X, Y).transform(X) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: small(settings={"epoch": 3}).fit(X, Y), "did you mean 'epochs'"),
        (lambda: small(loss="tripl").fit(X, Y), "unknown loss"),
        (lambda: small().fit(X, np.zeros(90)), "two classes or more, got 1 class"),
        (lambda: small().fit(X, Y + 0.5), "y must be whole numbers or names"),
        (lambda: small().fit(X, ["a", float("nan"), "b"] * 30), r"none \(nan\) in row 1"),
        (lambda: small().fit(X, np.ma.masked_equal(Y, 1)), "y must .* a masked array"),
        (lambda: small().fit(np.ma.masked_greater(X, 1), Y), "X must .* a masked array"),
        (lambda: small().fit(torch.empty(90, 5, device="meta"), Y), "X must .* without values"),
        (lambda: small(loss_options={"margn": 1}, loss="contrastive").fit(X, Y), "margin"),
    ],
)
def test_errors_say_what_was_wanted(build, said):
    with pytest.raises(ValueError, match=said):
        build()
