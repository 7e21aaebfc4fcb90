"""Data sets in words: what a person calls the files that pages and rows are named after."""

from __future__ import annotations

import re

from nearkin.data.terms import NAMES


def spoken(stem: str) -> str:
    """What a page or a row was made on, in words, from how its file is named.

    >>> spoken("CUB_200_2011_efficientnet_lite0_224px-orthogonal")
    'CUB birds, stored features, heads started orthogonal'
    >>> spoken("mnist-epochs-8"), spoken("features:/data/x_y.npz")
    ('MNIST digits, 8 epochs', 'x y')
    """
    name = stem.removeprefix("features:").rpartition("/")[2].removesuffix(".npz")
    name, epochs = re.fullmatch(r"(.*?)(?:-epochs-(\d+))?", name).groups()  # type: ignore[union-attr]
    start = name.removesuffix("-orthogonal")
    words = [NAMES.get(start, start.replace("_", " "))] if start != "orthogonal" else []
    words += ["heads started orthogonal"] if name.endswith("orthogonal") else []
    words += [f"{epochs} epochs"] if epochs else []
    return ", ".join(words)
