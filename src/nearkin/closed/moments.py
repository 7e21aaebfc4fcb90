"""What closed forms need of a set: counts, means and scatter of its classes, in one pass over it.

Dimensions: N items, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

BLOCK = 4096
"""Items that are in float64 at a time: 42 MB of 1,280 features, and as much beside them."""


@dataclass(frozen=True)
class Moments:
    """The sufficient statistics of every form that is made of means and covariances.

    counts: (C,) items of each class; means: (C, F) of each class, float64.
    scatter: (F, F) float64, sum over the items of (x - its class's mean)(x - its class's mean)^T.
    classes: (C,) the labels, sorted.

    Those of two sets give those of their union, so that a set can be seen a block at a time, by
    several machines, or as it grows.
    """

    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, labels: np.ndarray) -> Moments:
        """Those of items x (N, F) float64 with labels (N,)."""
        order = np.argsort(labels, kind="stable")
        classes, start, counts = np.unique(labels[order], return_index=True, return_counts=True)
        x = x[order]
        means = np.add.reduceat(x, start, axis=0) / counts[:, None]
        x -= np.repeat(means, counts, axis=0)
        return cls(counts, means, x.T @ x, classes)

    def merged(self, other: Moments) -> Moments:
        """Those of both sets together.

        Of a class with n items around a in one and m around b in the other, the scatter is that
        within either and nm / (n + m) (a - b)(a - b)^T (Chan, Golub & LeVeque, 1979): a sum of
        squares, so that nothing is lost to cancellation.
        """
        classes = np.union1d(self.classes, other.classes)
        counts, means = np.zeros((2, len(classes)), int), np.zeros((2, len(classes), self.features))
        for part, moments in enumerate((self, other)):
            place = np.searchsorted(classes, moments.classes)
            counts[part, place], means[part, place] = moments.counts, moments.means
        total = counts.sum(0)
        share = (counts[1] / total)[:, None]
        both = counts.min(0) > 0
        gap = (means[1] - means[0])[both] * np.sqrt(counts[0] * share[:, 0])[both, None]
        scatter = self.scatter + other.scatter + gap.T @ gap
        return Moments(total, means[0] * (1 - share) + means[1] * share, scatter, classes)

    @property
    def features(self) -> int:
        """F."""
        return self.means.shape[1]

    @property
    def items(self) -> int:
        """N."""
        return int(self.counts.sum())

    @property
    def mean(self) -> np.ndarray:
        """(F,) of all items."""
        return self.counts @ self.means / self.items

    @property
    def within(self) -> np.ndarray:
        """S_w (F, F): mean over the items of (x - its class's mean)(x - its class's mean)^T."""
        return self.scatter / self.items

    @property
    def offsets(self) -> np.ndarray:
        """O (C, F) with S_b = O^T O: the class means less the mean, times the root of their share.

        S_b is the covariance between the classes, and S_t = S_w + S_b that of all items.
        """
        return (self.means - self.mean) * np.sqrt(self.counts / self.items)[:, None]

    @property
    def between(self) -> np.ndarray:
        """S_b (F, F)."""
        return self.offsets.T @ self.offsets

    @cached_property
    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """`spectrum` of S_w, found once for all forms and shrinkages."""
        return spectrum(self.within)

    @cached_property
    def unlabelled(self) -> Moments:
        """Those of the same items as one class, whose S_w is S_t."""
        return Moments(
            np.array([self.items]),
            self.mean[None],
            self.scatter + self.items * self.between,
            self.classes[:1],
        )


@dataclass(frozen=True)
class Items:
    """A set that is read a block at a time, so that a memory map of any length will do.

    x: (N, F) numbers, in memory or in a map of a file; labels: (N,) integers.
    power: p of x -> sign(x) |x|^p, which every block is given as it is read.
    """

    x: Any
    labels: np.ndarray
    power: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, chosen: Any) -> np.ndarray:
        """Some items, powered, in float64: a copy that may be overwritten."""
        return powered(np.array(self.x[chosen], float), self.power)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(x, labels), a block at a time."""
        for start in range(0, len(self), BLOCK):
            part = slice(start, start + BLOCK)
            yield self.rows(part), self.labels[part]

    def by_class(self) -> Iterator[np.ndarray]:
        """(n, F) the items of one class after the other."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.unique(self.labels, return_counts=True)[1])
        for place in np.split(order, ends[:-1]):
            yield self.rows(place)

    @cached_property
    def moments(self) -> Moments:
        """The moments of all."""
        found: Moments | None = None
        for x, labels in self.blocks():
            new = Moments.of(x, labels)
            found = new if found is None else found.merged(new)
        assert found, "a set of items is not empty"
        return found

    def quartic(self, moments: Moments) -> float:
        """Sum over the items of |x - its class's mean|^4, the class as the moments have it.

        It takes a second pass over the items.
        """
        total, last = 0.0, len(moments.classes) - 1
        for x, labels in self.blocks():
            x -= moments.means[np.searchsorted(moments.classes, labels).clip(max=last)]
            total += float((np.einsum("nf,nf->n", x, x) ** 2).sum())
        return total


@dataclass(frozen=True)
class Summary:
    """A set of which only the moments are left."""

    moments: Moments

    def quartic(self, moments: Moments) -> float:
        raise ValueError("shrinkage='ledoit-wolf' wanted all items at once, got a summary of them")


Set = Items | Summary


def spectrum(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (F,), the largest first, none below 0, and eigenvectors (F, F), as columns."""
    values, vectors = np.linalg.eigh(covariance)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def powered(x: np.ndarray, power: float) -> np.ndarray:
    """sign(x) |x|^p, in place: the power normalisation of heavy-tailed features.

    With p = 0.5, inner products of features that are 0 or more become the Hellinger kernel.
    Source: Perronnin, Sánchez & Mensink, Improving the Fisher kernel, ECCV 2010, section 3.2.

    >>> powered(np.array([4.0, -9.0]), 0.5).tolist()
    [2.0, -3.0]
    """
    if power == 1:
        return x
    size = np.abs(x)
    np.sqrt(size, out=size) if power == 0.5 else np.power(size, power, out=size)
    return np.copysign(size, x, out=x)
