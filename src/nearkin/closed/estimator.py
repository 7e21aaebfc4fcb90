"""Closed forms as estimators of scikit-learn, and PLDA's score.

Dimensions: N and M items, F features, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from nearkin.closed.catalogue import UNLABELLED, check_settings, solve
from nearkin.closed.forms import LinearMap, Shrinkage, plda_model
from nearkin.closed.moments import BLOCK, Items, Summary, powered
from nearkin.extras import optional
from nearkin.labels import classes_for_sklearn, for_sklearn, plain_labels

with optional():
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_array
    from sklearn.utils.validation import check_is_fitted, validate_data


CLASSES = "wanted classes as whole numbers or names"


class ClosedForm(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A linear map by formula, after an elementwise power, as a transformer of scikit-learn.

        z = W sign(x) |x|^p + b,    float64 inside, float32 out

    A set is read a block at a time, so that `fit` takes a memory map of any length; `partial_fit`
    takes a block after the other of an iterator, for the forms that are made of means and
    covariances (all but lfda and nca).

    Args:
        form: its name in `FORMS`; what it is stands at its function, `nearkin.closed.forms.lda`.
        dim: D; None: as many as there are features.
        power: p; 0.5 for features that are averages of ReLU outputs.
        shrinkage: a share of the mean variance that is added to all variances, or "oas" or
            "ledoit-wolf", which choose it; None: the form's own, 1.0. Without labels, and in
            `regression`, of the covariance of all items, else of that within classes.
        options: those that the form has of its own, as {"neighbours": 7} of lfda.

    Attributes:
        map_: the `LinearMap`, with weight W (D, F) and bias b (D,).
        moments_: what it was made from, which `partial_fit` adds to.

    >>> x = np.array([[0.0, 0], [0, 2], [4, 0], [4, 2]])
    >>> ClosedForm("whitened", shrinkage=3.0).fit(x, [0, 0, 1, 1]).transform(x)[0]
    array([-1.63..., -0.63...], dtype=float32)
    """

    def __init__(
        self,
        form: str = "whitened",
        dim: int | None = None,
        *,
        power: float = 1.0,
        shrinkage: Shrinkage | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        self.form = form
        self.dim = dim
        self.power = power
        self.shrinkage = shrinkage
        self.options = options

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to items X (N, F) with classes y (N,), which forms without labels leave aside."""
        items = read(self, X, y)
        self.moments_ = items.moments
        self._map = self._solve(items)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add items to those seen so far; the map is made when it is first asked for."""
        first = not hasattr(self, "moments_")
        new = read(self, X, y, reset=first).moments
        self.moments_ = new if first else self.moments_.merged(new)
        self._map = None
        return self

    @property
    def map_(self) -> LinearMap:
        """The map."""
        check_is_fitted(self)
        if self._map is None:
            self._map = self._solve(Summary(self.moments_))
        return self._map

    def _solve(self, of: Items | Summary) -> LinearMap:
        shrinkage, options = self.shrinkage, self.options
        return solve(
            self.form, of, self.dim, power=self.power, shrinkage=shrinkage, options=options
        )

    def transform(self, X: Any) -> np.ndarray:
        """Embeddings (N, D) float32 of items X (N, F)."""
        check_is_fitted(self)
        X = for_sklearn(X, "X must be numbers")
        X = validate_data(self, X, dtype=None, ensure_all_finite=False, reset=False)
        weight, bias = self.map_.weight, self.map_.bias
        z = np.empty((len(X), len(weight)), np.float32)
        for part in parts(len(X)):
            z[part] = powered(finite(self, X[part]), self.power) @ weight.T + bias
        return z

    @property
    def _n_features_out(self) -> int:
        return len(self.map_.components)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.form not in UNLABELLED
        if tags.transformer_tags:
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


class PLDA(BaseEstimator):
    """Probabilistic LDA as a score of two items: how much likelier they are of one class than not.

        log p(x, y | one class) / (p(x) p(y))
            =  sum_k  ψ / (1 + 2ψ) x_k y_k  -  ψ² / (2 (1 + ψ)(1 + 2ψ)) (x_k² + y_k²)
                      + log(1 + ψ) - log(1 + 2ψ) / 2

    in the space in which the noise is 1 in all directions, and classes vary by ψ_k in the k-th.
    Source and estimates: `nearkin.closed.forms.plda_model`.

    Args:
        power, shrinkage: as of `ClosedForm`.
    """

    def __init__(self, *, power: float = 1.0, shrinkage: Shrinkage = 1.0):
        self.power = power
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to items X (N, F) with classes y (N,)."""
        items = read(self, X, y)
        self.latent_, self.spread_ = plda_model(items, self.shrinkage)
        return self

    def log_odds(self, X: Any, Y: Any) -> np.ndarray:
        """(N, M) float64: the score of each of X (N, F) with each of Y (M, F)."""
        check_is_fitted(self)
        x, y = self._latent(X), self._latent(Y)
        psi = self.spread_
        alone = psi**2 / (2 * (1 + psi) * (1 + 2 * psi))
        const = (np.log1p(psi) - np.log1p(2 * psi) / 2).sum()
        both = (x * psi / (1 + 2 * psi)) @ y.T
        return both - (x**2 @ alone)[:, None] - y**2 @ alone + const

    def _latent(self, X: Any) -> np.ndarray:
        X = for_sklearn(X, "X must be numbers")
        X = validate_data(self, X, dtype=float, copy=True, reset=False)
        return powered(X, self.power) @ self.latent_.weight.T + self.latent_.bias


def read(estimator: Any, X: Any, y: Any, reset: bool = True) -> Items:
    """The items of an estimator with this power and shrinkage, found to be numbers, block by block.

    y is left aside by a form that looks at no labels.
    """
    check_settings(estimator.power, estimator.shrinkage)
    X = for_sklearn(X, "X must be numbers")
    rules: dict[str, Any] = {"dtype": None, "ensure_all_finite": False, "reset": reset}
    if getattr(estimator, "form", None) in UNLABELLED:
        X = validate_data(estimator, X, ensure_min_samples=2, **rules)
        labels = np.zeros(len(X), int)
    else:
        y = classes_for_sklearn(y, CLASSES)
        X, labels = map(np.asarray, validate_data(estimator, X, y, ensure_min_samples=2, **rules))
        labels = plain_labels(labels, CLASSES)
    for part in parts(len(X)):
        finite(estimator, X[part])
    return Items(X, labels, estimator.power)


def finite(estimator: Any, x: Any) -> np.ndarray:
    """A block as float64, a copy, or an error of scikit-learn's that says what it is instead."""
    return check_array(x, dtype="float64", copy=True, estimator=estimator, input_name="X")


def parts(count: int) -> list[slice]:
    """Blocks of that many items."""
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]
