"""The data sets of the studies: files of features, classes, and ProxyGML's recipe on each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nearkin.runs.recipe import Plain, Recipe
from nearkin.studies.shared.tuning import ORTHOGONAL, common, started

CUB = "features:CUB_200_2011_efficientnet_lite0_224px.npz"
CARS = "features:stanford_cars_crops_efficientnet_lite0_224px.npz"
OMNIGLOT = "features:omniglot_efficientnet_lite0_224px.npz"

PICTURES = {CUB: "cub", CARS: "cars", OMNIGLOT: "omniglot"}
"""File of features -> the data set of whose pictures they are."""

CLASSES = {CUB: 100, CARS: 98, "cub": 100, "cars": 98, "sop": 11_318}
CLASSES |= {OMNIGLOT: 964, "omniglot": 964, "mnist-5k": 10}
"""Training classes, to know beforehand which ratios choose the true class alone."""

OPTIONS: dict[str, dict[str, Plain]] = {
    "omniglot": {"proxies": 4},
    OMNIGLOT: {"proxies": 4},
    "mnist-5k": {"ratio": 0.3},
}
"""Where the released options do not fit: hundreds of small classes, or ten."""


def proxygml(
    data: str, epochs: int, options: Mapping[str, Plain], start: str = ORTHOGONAL
) -> Recipe:
    """ProxyGML with these options on this data set, its settings not chosen yet."""
    options = {**fitted(data), **options}
    base = replace(common(data, epochs, start), loss="proxy-gml", loss_options=options)
    return started(base, start)


def fitted(data: str) -> dict[str, Plain]:
    """The options that fit this data set better than the released ones."""
    return OPTIONS.get(by_file(data), {})


def classes(data: str) -> int | None:
    """The number of training classes, where it is known."""
    return CLASSES.get(by_file(data))


def pictures_of(data: str) -> str:
    """The data set of whose pictures the features are; of any other data their own name.

    >>> pictures_of("features:here/CUB_200_2011_efficientnet_lite0_224px.npz")
    'cub'
    """
    return PICTURES.get(by_file(data), by_file(data))


def by_file(data: str) -> str:
    """A data set's name; of features and folders without where they are.

    >>> by_file("features:here/cub.npz"), by_file("cub")
    ('features:cub.npz', 'cub')
    """
    kind, _, path = data.rpartition(":")
    return f"{kind}:{Path(path).name}" if kind else path


def teaches(data: str, ratio: float) -> bool:
    """Whether more proxies are chosen than the true class has; data sets not known pass.

    >>> teaches("cub", 0.01), teaches("cub", 0.02)
    (False, True)
    """
    return ratio * (classes(data) or math.inf) > 1
