"""Data sets in words: what a person calls the files that pages and rows are named after."""

from __future__ import annotations

import re

from nearkin.data.terms import spoken


def made_on(stem: str) -> str:
    """What a page was made on, in words, from how its file is named after its study.

    >>> made_on("CUB_200_2011_efficientnet_lite0_224px-orthogonal")
    'CUB birds, stored features, heads started orthogonal'
    >>> made_on("mnist-epochs-8")
    'MNIST digits, 8 epochs'
    """
    name, epochs = re.fullmatch(r"(.*?)(?:-epochs-(\d+))?", stem).groups()  # type: ignore[union-attr]
    start = name.removesuffix("-orthogonal")
    words = [spoken(start)] if start != "orthogonal" else []
    words += ["heads started orthogonal"] if name.endswith("orthogonal") else []
    words += [f"{epochs} epochs"] if epochs else []
    return ", ".join(words)
