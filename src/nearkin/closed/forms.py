"""The closed forms made of means and covariances: moments of a set in, a linear map out.

All have one shape. Features are whitened by one matrix, and turned so that the directions that the
form chooses come first; the embedding is made of these:

    z = K A (x - m)         m (F,) the mean, A (F, F) the coordinates, K (D, F) the components

With S = V diag(e) V^T, R diag(e + λ)^(-1/2) V^T makes S + λ the identity, whatever the rotation R.
λ = s mean(e) is the shrinkage towards a sphere: s may also be "oas" or "ledoit-wolf", which choose
it by formula.

Dimensions: N items, C classes, F features, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nearkin.closed.moments import Moments, Set, spectrum

Shrinkage = float | str
ROUNDING = 1e-12  # of the largest value: what is less is taken for 0


@dataclass(frozen=True)
class LinearMap:
    """z = K A (sign(x) |x|^p - m): (N, F) -> (N, D), float64.

    mean: m (F,); coordinates: A (F, F); components: K (D, F); power: p.
    """

    mean: np.ndarray
    coordinates: np.ndarray
    components: np.ndarray
    power: float = 1.0

    @property
    def weight(self) -> np.ndarray:
        """W = K A (D, F)."""
        return self.components @ self.coordinates

    @property
    def bias(self) -> np.ndarray:
        """b = -W m (D,): z = W sign(x) |x|^p + b."""
        return -self.weight @ self.mean


def power(of: Set, dim: int) -> LinearMap:
    """The features as they are, but for the power before: A = K = 1, m = 0."""
    size = of.moments.features
    if dim != size:
        raise ValueError(f"the form 'power' leaves {size} features as many, got dim={dim}")
    return LinearMap(np.zeros(size), np.eye(size), np.eye(size))


def pca(of: Set, dim: int) -> LinearMap:
    """Principal components: the directions of largest variance, not scaled.

    K: the D leading eigenvectors of S_t; A = 1.
    """
    moments = of.moments.unlabelled
    _, vectors = moments.spectrum
    return LinearMap(moments.mean, np.eye(moments.features), signed(vectors.T[:dim]))


def pca_whitened(of: Set, dim: int, shrinkage: Shrinkage = 1.0) -> LinearMap:
    """Principal components, each divided by the root of its variance + λ.

    A whitens S_t + λ; K: the first D directions there, which are in the order of their variance.
    """
    moments = of.moments.unlabelled
    coordinates, _ = whitening(moments, shrinkage, of)
    return LinearMap(moments.mean, coordinates, np.eye(dim, moments.features))


def whitened(of: Set, dim: int, shrinkage: Shrinkage = 1.0) -> LinearMap:
    """Within-class whitening: how items of a class differ is made alike in all directions.

    A whitens S_w + λ; K: the D leading eigenvectors of S_t there.

    It is known as within-class covariance normalisation (Hatch, Kajarekar & Stolcke, Interspeech
    2006), relevant component analysis with each class a chunk (Shental et al., ECCV 2002;
    Bar-Hillel et al., JMLR 2005) and learned whitening (Mikolajczyk & Matas, ICCV 2007). Differs:
    the shrinkage, without which directions that hardly differ within classes are noise blown up.
    """
    moments = labelled(of.moments, "within-class whitening")
    coordinates, seen = whitening(moments, shrinkage, of)
    offsets = moments.offsets @ coordinates.T
    _, vectors = spectrum(offsets.T @ offsets + np.diag(seen))
    return LinearMap(moments.mean, signed(vectors.T @ coordinates), np.eye(dim, moments.features))


def lda(of: Set, dim: int, shrinkage: Shrinkage = 1.0) -> LinearMap:
    """Linear discriminants: the directions in which class means are furthest apart.

    A whitens S_w + λ; K: the eigenvectors of S_b there, C - 1 at most, and after them the
    directions of largest variance among the rest.

    Source: Fisher, 1936; Rao, 1948. Differs from scikit-learn's LDA(solver="eigen", shrinkage):
    that shrinks S_t too and takes S_b as their difference, which adds a multiple of the identity
    to it; the two agree without shrinkage.
    """
    moments = labelled(of.moments, "lda")
    coordinates, _ = discriminants(moments, shrinkage, of)
    return LinearMap(moments.mean, coordinates, np.eye(dim, moments.features))


def kissme(of: Set, dim: int, shrinkage: Shrinkage = 1.0, contrast: float = 1.0) -> LinearMap:
    """Keep it simple and straightforward metric learning: a ratio of two Gaussians of differences.

        log N(x - y; 0, 2 S_w) / N(x - y; 0, 2 S_t)^a  =  const - (x - y)^T M (x - y) / 4
        M = (S_w + λ)^-1 - a (S_w + λ + S_b)^-1,     a = 1 in the paper

    A whitens S_w + λ; where S_b has the eigenvalue ψ there, M has 1 - a / (1 + ψ). K: the
    eigenvectors times the root of that. With a = 1, all but the first C - 1 are 0; with a = 0 there
    are no weights, as in `lda`.

    Args:
        contrast: a in [0, 1], how much it counts that two items differ as any two do. Below 1,
            directions in which no training class differs keep a part, which new classes may need.

    Source: Köstinger et al., Large scale metric learning from equivalence constraints, CVPR 2012,
    eq. 6-10. Differs: kin pairs are an item and one drawn from its class, others an item and one
    drawn from all, which needs no list of pairs, and leaves M no negative part to be clipped.
    """
    if not 0 <= contrast <= 1:
        raise ValueError(f"contrast must be in [0, 1], got {contrast}")
    moments = labelled(of.moments, "kissme")
    coordinates, values = discriminants(moments, shrinkage, of)
    weights = np.sqrt((values + 1 - contrast) / (values + 1))
    return LinearMap(moments.mean, coordinates, np.diag(weights)[:dim])


def plda(of: Set, dim: int, shrinkage: Shrinkage = 1.0) -> LinearMap:
    """Probabilistic LDA as a map: the part of its score that two items have in common.

    A whitens the noise W; K: the eigenvectors of the class covariance B there, of variances ψ,
    times the root of ψ / (1 + 2ψ), so that inner products are the first sum of `PLDA`'s score. All
    but the first C - 1 are 0.
    """
    latent, spread = plda_model(of, shrinkage)
    return replace(latent, components=np.diag(np.sqrt(spread / (1 + 2 * spread)))[:dim])


def plda_model(of: Set, shrinkage: Shrinkage) -> tuple[LinearMap, np.ndarray]:
    """The map to the space where the noise is 1 in all directions, and ψ (F,), how classes vary in
    each.

        x = m + class + noise,    class ~ N(0, B),   noise ~ N(0, W)
        W = S_w n / (n - 1),      B = S_b - S_w / (n - 1),     for n items a class

    Source: Ioffe, Probabilistic linear discriminant analysis, ECCV 2006, whose closed form this is.
    Differs: where classes differ in size, n is N / C; S_w is shrunk.
    """
    moments = labelled(of.moments, "plda")
    coordinates, values = discriminants(moments, shrinkage, of)
    share = len(moments.counts) / moments.items  # 1 / n
    latent = LinearMap(moments.mean, coordinates * np.sqrt(1 - share), np.eye(moments.features))
    return latent, np.maximum(values * (1 - share) - share, 0)


def regression(of: Set, dim: int, shrinkage: Shrinkage = 1.0) -> LinearMap:
    """Ridge regression onto class codes: the embedding is what it predicts.

        R = argmin  mean |R (x - m) - (code(y) - mean code)|² + λ |R|²,     code(y): one-hot

    A whitens S_t + λ, where the rows of R are the class means times the share of the class. K: R
    rotated to the D leading principal components of its predictions, of which there are C - 1 at
    most; the rest are 0.

    Source: Hoerl & Kennard, 1970; as an embedding: Hastie, Buja & Tibshirani, Penalized
    discriminant analysis, 1995.
    """
    moments = labelled(of.moments, "regression")
    coordinates, seen = whitening(moments.unlabelled, shrinkage, of)
    rows = moments.offsets @ coordinates.T * np.sqrt(moments.counts / moments.items)[:, None]
    rotation, roots, _ = np.linalg.svd(rows * np.sqrt(seen), full_matrices=False)
    components = np.zeros((max(dim, len(roots)), moments.features))
    components[: len(roots)] = signed(rotation.T @ rows)
    return LinearMap(moments.mean, coordinates, components[:dim])


def labelled(moments: Moments, name: str) -> Moments:
    """The moments, if there are classes to tell apart, and items of a class that differ."""
    if len(moments.counts) < 2:
        raise ValueError(f"{name} wanted two classes or more, got {len(moments.counts)}")
    if not np.trace(moments.scatter) > 0:
        raise ValueError(
            f"{name} wanted two different items of some class, got {moments.items} items of "
            f"{len(moments.counts)} classes without"
        )
    return moments


def whitening(moments: Moments, shrinkage: Shrinkage, of: Set) -> tuple[np.ndarray, np.ndarray]:
    """A (F, F) that makes the shrunk S_w of these moments the identity, and the variances (F,) that
    S_w itself has there.

    Directions that have no variance even so, without shrinkage, become 0.
    """
    values, vectors = moments.spectrum
    if not values[0] > 0:
        raise ValueError(f"wanted items that differ, got {moments.items} that are all the same")
    kept = shrunk(values, shrinkage, moments, of)
    kept = np.where(kept > ROUNDING * kept[0], kept, np.inf)
    return signed(vectors.T) / np.sqrt(kept)[:, None], values / kept


def shrunk(values: np.ndarray, shrinkage: Shrinkage, moments: Moments, of: Set) -> np.ndarray:
    """Eigenvalues e (F,) of S_w, drawn towards their mean: e + s mean(e), or, for "oas" and
    "ledoit-wolf", (1 - δ) e + δ mean(e), which gives the same map but for its scale.

    Source: Chen, Wiesel, Eldar & Hero, Shrinkage algorithms for MMSE covariance estimation, 2010,
    eq. 23, as scikit-learn has it; Ledoit & Wolf, A well-conditioned estimator for
    large-dimensional covariance matrices, 2004, section 3.3.
    """
    mean, square = values.mean(), (values**2).sum()
    if not isinstance(shrinkage, str):
        return values + shrinkage * mean
    size, items = len(values), moments.items
    if shrinkage == "oas":
        wanted, had = square / size**2 + mean**2, square / size**2 - mean**2 / size
        had *= items + 1
    else:
        wanted, had = (of.quartic(moments) / items - square) / items, square - size * mean**2
    part = min(wanted / had, 1.0) if had > 0 else 1.0
    return (1 - part) * values + part * mean


FORMULAS = ("oas", "ledoit-wolf")
"""Kinds of shrinkage that choose its strength."""


def discriminants(moments: Moments, shrinkage: Shrinkage, of: Set) -> tuple[np.ndarray, np.ndarray]:
    """A that whitens S_w + λ, turned so that S_b is diagonal, and its eigenvalues (F,) there, the
    largest first; where they are 0, the directions are in the order of the variance of S_w."""
    coordinates, seen = whitening(moments, shrinkage, of)
    offsets = np.linalg.qr(moments.offsets @ coordinates.T, mode="r")  # F rows, of many classes
    _, roots, vectors = np.linalg.svd(offsets)
    found = int((roots > ROUNDING * roots[0]).sum())
    first, rest = vectors[:found], vectors[found:]
    _, order = spectrum(rest * seen @ rest.T)
    values = np.zeros(moments.features)
    values[:found] = roots[:found] ** 2
    return signed(np.concatenate([first, order.T @ rest]) @ coordinates), values


def signed(rows: np.ndarray) -> np.ndarray:
    """Each row, or its negative, so that its largest entry is positive: eigenvectors have no sign,
    and so it does not depend on the library that finds them."""
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return rows * np.where(largest < 0, -1, 1)
