"""Closed forms beside scikit-learn, metric-learn, and slow loops from their formulas."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.stats import multivariate_normal
from sklearn import covariance
from sklearn.decomposition import PCA as PeerPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import NeighborhoodComponentsAnalysis

from nearkin.closed import PLDA, ClosedForm, Items, Moments
from nearkin.closed.forms import shrunk
from nearkin.closed.moments import spectrum
from nearkin.closed.neighbours import kin_share


@pytest.fixture
def points() -> tuple[np.ndarray, np.ndarray]:
    """6 classes of 9 to 14 points in 5 dimensions."""
    random = np.random.default_rng(5)
    y = np.repeat(np.arange(6), np.arange(9, 15))
    mix = random.normal(size=(5, 5))
    x = 1.5 * random.normal(size=(6, 5))[y] + random.normal(size=(len(y), 5)) @ mix
    return x, y


@pytest.fixture
def metric_learn(monkeypatch):
    """metric-learn 0.7, which asks for an argument that scikit-learn has renamed."""
    peer = pytest.importorskip("metric_learn")
    for name in ("check_array", "check_X_y"):
        old = getattr(peer._util, name)
        new = lambda *a, _old=old, force_all_finite=True, **k: _old(  # noqa: E731
            *a, ensure_all_finite=force_all_finite, **k
        )
        monkeypatch.setattr(peer._util, name, new)
    return peer


def same_directions(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    """Row by row, but for sign and scale."""
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
    np.testing.assert_allclose(np.abs((a * b).sum(1)), 1, atol=tolerance)


def metric(weight: np.ndarray) -> np.ndarray:
    """W^T W, whatever rotation W is in."""
    return weight.T @ weight


def test_pca_is_scikit_learns(points):
    x, y = points
    peer = PeerPCA(3).fit(x)
    ours = ClosedForm("pca", 3).fit(x, y)
    same_directions(ours.map_.weight, peer.components_)
    np.testing.assert_allclose(np.abs(ours.transform(x)), np.abs(peer.transform(x)), atol=1e-5)


def test_pca_whitening_is_scikit_learns_without_shrinkage(points):
    x, y = points
    peer = PeerPCA(3, whiten=True).fit_transform(x) * np.sqrt(len(x) / (len(x) - 1))
    ours = ClosedForm("pca-whitened", 3, shrinkage=0.0).fit_transform(x, y)
    np.testing.assert_allclose(np.abs(ours), np.abs(peer), rtol=1e-4, atol=1e-5)


def test_lda_is_scikit_learns_without_shrinkage(points):
    x, y = points
    peer = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.0).fit(x, y)
    ours = ClosedForm("lda", 5, shrinkage=0.0).fit(x, y)
    same_directions(ours.map_.weight, peer.scalings_.T)
    np.testing.assert_allclose(
        metric(ours.map_.weight), metric(peer.scalings_.T), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_lda_with_shrinkage_differs_from_scikit_learns_as_its_docstring_says(share, points):
    """It takes S_b as the difference of two shrunk matrices, and so adds to its diagonal."""
    x, y = points
    peer = LinearDiscriminantAnalysis(solver="eigen", shrinkage=share).fit(x, y)
    of = Moments.of(x.copy(), y)
    mean = np.trace(of.within) / 5
    within = (1 - share) * of.within + share * mean * np.eye(5)
    added = share * np.trace(of.between) / 5 * np.eye(5)
    _, theirs = scipy.linalg.eigh((1 - share) * of.between + added, within)
    same_directions(theirs.T[::-1], peer.scalings_.T)
    _, right = scipy.linalg.eigh(of.between, within)
    ours = ClosedForm("lda", 5, shrinkage=share / (1 - share)).fit(x, y)
    same_directions(ours.map_.weight, right.T[::-1])


@pytest.mark.parametrize("form", ["oas", "ledoit-wolf"])
def test_shrinkage_by_formula_is_scikit_learns(form, points):
    x, y = points
    items = Items(x, y)
    of = items.moments
    rest = x - of.means[y]
    peer = {"oas": covariance.oas, "ledoit-wolf": covariance.ledoit_wolf}[form]
    wanted, _ = peer(rest, assume_centered=True)
    values, vectors = spectrum(of.within)
    ours = vectors * shrunk(values, form, of, items) @ vectors.T
    np.testing.assert_allclose(ours, wanted)
    fitted = ClosedForm("whitened", shrinkage=form).fit(x, y)
    np.testing.assert_allclose(metric(fitted.map_.weight), np.linalg.inv(wanted))
    total, _ = peer(x - x.mean(0), assume_centered=True)
    fitted = ClosedForm("pca-whitened", shrinkage=form).fit(x)
    np.testing.assert_allclose(metric(fitted.map_.weight), np.linalg.inv(total))


def test_within_class_whitening_is_metric_learns_rca(points, metric_learn):
    x, y = points
    peer = metric_learn.RCA().fit(x, y)
    ours = ClosedForm("whitened", shrinkage=0.0).fit(x, y)
    np.testing.assert_allclose(metric(ours.map_.weight), peer.get_mahalanobis_matrix())


@pytest.mark.parametrize("k", [2, 4])
def test_lfda_is_metric_learns_but_for_its_scales(k, points, metric_learn, monkeypatch):
    """It takes all distances of the k-th item for those to everyone's k-th neighbour."""

    def affinity(x, neighbours):
        square = np.sum((x[:, None] - x[None]) ** 2, 2)
        reach = np.sqrt(np.partition(square, neighbours, axis=0)[:, neighbours])
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.outer(reach, reach)
            return np.where(scale > 0, np.exp(-square / scale), 0.0)

    x, y = points
    peer = metric_learn.LFDA(n_components=4, k=k, embedding_type="plain").fit(x, y)
    monkeypatch.setattr("nearkin.closed.neighbours.affinity", affinity)
    ours = ClosedForm("lfda", 4, shrinkage=0.0, options={"neighbours": k}).fit(x, y)
    same_directions(ours.map_.weight, peer.components_)


def test_lfda_from_the_formula(points):
    x, y = points
    items, k = len(x), 3
    near, far = np.zeros((2, 5, 5))
    for i in range(items):
        for j in range(items):
            gap = np.outer(x[i] - x[j], x[i] - x[j]) / 2
            if y[i] != y[j]:
                far += gap / items
                continue
            of_class = x[y == y[i]]
            reach = [np.sort(np.linalg.norm(of_class - x[a], axis=1))[k] for a in (i, j)]
            a = np.exp(-np.sum((x[i] - x[j]) ** 2) / (reach[0] * reach[1]))
            near += a / len(of_class) * gap
            far += a * (1 / items - 1 / len(of_class)) * gap
    shrunk_near = near + 0.3 * np.trace(near) / 5 * np.eye(5)
    _, vectors = scipy.linalg.eigh(far, shrunk_near)
    ours = ClosedForm("lfda", 5, shrinkage=0.3, options={"neighbours": k}).fit(x, y)
    same_directions(ours.map_.weight, vectors.T[::-1])
    np.testing.assert_allclose(metric(ours.map_.weight), np.linalg.inv(shrunk_near / items))


def test_regression_is_scikit_learns_ridge(points):
    x, y = points
    codes = np.eye(6)[y]
    peer = Ridge(alpha=0.7 * np.trace(np.cov(x.T, bias=True)) / 5 * len(x)).fit(x, codes)
    wanted = PeerPCA().fit_transform(peer.predict(x))
    ours = ClosedForm("regression", 5, shrinkage=0.7).fit_transform(x, y)
    np.testing.assert_allclose(np.abs(ours), np.abs(wanted[:, :5]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("contrast", [1.0, 0.5, 0.0])
def test_kissme_is_a_ratio_of_gaussians_of_differences(points, contrast):
    """Kin pairs: an item and one drawn from its class; others: an item and one drawn from all."""
    x, y = points
    alike, any_two = np.zeros((2, 5, 5))
    for i in range(len(x)):
        of_class = x[y == y[i]]
        alike += sum(np.outer(x[i] - b, x[i] - b) for b in of_class) / len(of_class) / len(x)
        any_two += sum(np.outer(x[i] - b, x[i] - b) for b in x) / len(x) / len(x)
    shrink = 0.2 * np.trace(alike) / 5 * np.eye(5)
    ours = ClosedForm("kissme", 5, shrinkage=0.2, options={"contrast": contrast}).fit(x, y)
    z = x @ ours.map_.weight.T
    kin, other = (
        multivariate_normal(np.zeros(5), c + shrink).logpdf(x[:, None] - x[None])  # type: ignore[arg-type]
        for c in (alike, any_two)
    )
    ratio = kin - contrast * other
    square = np.sum((z[:, None] - z[None]) ** 2, 2)
    np.testing.assert_allclose(ratio - ratio[0, 0], -square / 4, atol=1e-8)


def test_plda_scores_are_ratios_of_gaussian_densities(points):
    x, y = points
    shrinkage, size = 0.3, len(x) / 6
    of = Moments.of(x.copy(), y)
    shrunk_within = of.within + shrinkage * np.trace(of.within) / 5 * np.eye(5)
    noise = shrunk_within * size / (size - 1)
    values, vectors = scipy.linalg.eigh(of.between - shrunk_within / (size - 1), noise)
    mix = noise @ vectors
    classes = mix * np.maximum(values, 0) @ mix.T  # its negative part is none
    both: Any = np.block([[noise + classes, classes], [classes, noise + classes]])
    together = multivariate_normal(np.zeros(10), both)
    alone = multivariate_normal(np.zeros(5), noise + classes)
    ours = PLDA(shrinkage=shrinkage).fit(x, y).log_odds(x[:9], x)
    for i in range(9):
        for j in range(len(x)):
            a, b = x[i] - of.mean, x[j] - of.mean
            wanted = together.logpdf(np.concatenate([a, b])) - alone.logpdf(a) - alone.logpdf(b)
            assert ours[i, j] == pytest.approx(wanted, abs=1e-8)


def test_plda_as_a_map_is_the_part_of_its_score_that_two_items_share(points):
    x, y = points
    model = PLDA(shrinkage=0.3).fit(x, y)
    z = ClosedForm("plda", 5, shrinkage=0.3).fit_transform(x, y).astype(float)
    odds = model.log_odds(x, x)
    doubly_centred = odds - odds.mean(0) - odds.mean(1)[:, None] + odds.mean()
    z -= z.mean(0)
    np.testing.assert_allclose(z @ z.T, doubly_centred, atol=1e-4)


def test_the_share_of_kin_from_the_formula(points):
    x, y = points
    z = x * 0.4
    wanted = 0.0
    for i in range(len(z)):
        closeness = np.exp(-np.sum((z[i] - z) ** 2, 1))
        closeness[i] = 0
        wanted += closeness[y == y[i]].sum() / closeness.sum() / len(z)
    share, _ = kin_share(torch.from_numpy(z), torch.from_numpy(y))
    assert share == pytest.approx(wanted)


def test_the_gradient_of_the_share_of_kin(points, monkeypatch):
    monkeypatch.setattr("nearkin.closed.neighbours.ANCHORS", 20)

    class Share(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, labels):
            share, ctx.slope = kin_share(z.detach(), labels)
            return z.new_tensor(share)

        @staticmethod
        def backward(ctx, *outer):
            return outer[0] * ctx.slope, None

    x, y = points
    z = torch.from_numpy(0.5 * x).requires_grad_()
    assert torch.autograd.gradcheck(Share.apply, (z, torch.from_numpy(y)))


def test_neighbourhood_components_end_where_scikit_learns_do(points):
    x, y = points
    peer = NeighborhoodComponentsAnalysis(2, init="lda", max_iter=500, tol=1e-9).fit(x, y)
    ours = ClosedForm("nca", 2, shrinkage=0.0, options={"steps": 500}).fit(x, y)
    labels = torch.from_numpy(y)
    share = [
        kin_share(torch.from_numpy(x @ w.T), labels)[0]
        for w in (ours.map_.weight, peer.components_)
    ]
    assert share[0] == pytest.approx(share[1], abs=0.02)
    loss, slope = peer._loss_grad_lbfgs(ours.map_.weight.flatten(), x, y[:, None] == y)
    assert loss == pytest.approx(share[0] * len(x))
    assert np.abs(slope).max() < 1e-2


def test_neighbourhood_components_are_metric_learns(points, metric_learn):
    x, y = points
    start = ClosedForm("nca", 2, options={"steps": 0}).fit(x, y).map_.weight
    peer = metric_learn.NCA(init=start, n_components=2, max_iter=200, tol=1e-9).fit(x, y)
    ours = ClosedForm("nca", 2, options={"steps": 200}).fit(x, y)
    labels = torch.from_numpy(y)
    first, *shares = (
        kin_share(torch.from_numpy(x @ w.T), labels)[0]
        for w in (start, ours.map_.weight, peer.components_)
    )
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert min(shares) > first


def test_decay_holds_neighbourhood_components_near_their_start(points):
    x, y = points
    start, free, held = (
        ClosedForm("nca", 2, options={"steps": steps, "decay": decay}).fit(x, y).map_.components
        for steps, decay in ((0, 0.0), (50, 0.0), (50, 1000.0))
    )
    away = [np.linalg.norm(k - start) / np.linalg.norm(start) for k in (free, held)]
    assert away[1] < 0.05 < away[0]
